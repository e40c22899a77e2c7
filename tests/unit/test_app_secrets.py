"""Secrets and .env files of an app: what reaches it to the byte, and what is refused by name."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleUndefinedVariable
from ansible.template import trust_as_template
from rendering import ROLES, Host, unit_of
from test_own_app import load_module
from test_preflight import variables
from test_replicas import containers

environment = load_module(ROLES / "vantage/filter_plugins/environment.py")
files_module = ROLES / "vantage/library/vantage_files.py"

LITERAL = "a{{ b }}c{% d %}e{# f #}g$h%i\\j\"k'l ä€"
APP = {"name": "blog", "image": "blog:1", "port": 8000}


# Values ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0o123, "number"), (True, "true or false"), (45045, "number"), (None, "empty"), (1.5, "number"), ([1], "list"),
        (datetime.date(2026, 11, 25), "date"), ({"a": 1}, "mapping"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["secrets", "secret_environment"])
def test_secret_that_is_no_text_is_refused_by_name_with_the_fix(key: str, value: Any, kind: str) -> None:
    (problem,) = variables.app_problems([APP | {key: {"pin": value, "fine": "0123"}}])
    for word in ("app blog", key, "pin", kind, "quotes"):
        assert word in problem
    assert "83" not in problem
    (problem,) = variables.all_problems({f"flask_app_{key}": {"pin": value}}, lambda given: given)
    assert f"flask_app_{key}: pin" in problem


@pytest.mark.parametrize("name", ["grafana_admin_password", "alertmanager_smtp_password"])
def test_password_that_is_no_text_is_refused(name: str) -> None:
    (problem,) = variables.all_problems({name: 83}, lambda given: given)
    assert name in problem
    assert "quotes" in problem
    assert variables.all_problems({name: "0123"}, lambda given: given) == []


@pytest.mark.parametrize("text", ["abc{{", "a{% d %}", "a{# gone #}b"])
@pytest.mark.parametrize("where", ["variable", "app"])
def test_secret_that_is_a_template_by_mistake_is_named(text: str, where: str) -> None:
    secrets = {"jinja": trust_as_template(text), "fine": "x"}
    given = {"flask_app_secrets": secrets} if where == "variable" else {"vantage_apps": [APP | {"secrets": secrets}]}
    host = Host("flask_app", **given)
    (problem,) = variables.all_problems(given, host.value)
    for word in ("secrets", "jinja", "!unsafe"):
        assert word in problem
    assert text not in problem


def test_secret_from_an_undefined_variable_names_the_variable() -> None:
    given = {"flask_app_secrets": {"key": trust_as_template("{{ vault_key }}")}}
    (problem,) = variables.all_problems(given, Host("flask_app").value)
    assert "vault_key" in problem
    with pytest.raises(AnsibleUndefinedVariable):
        Host("flask_app").value(given)


def test_secret_of_another_variable_is_fine() -> None:
    given = {"flask_app_secrets": {"key": trust_as_template("pre-{{ vault_key }}"), "literal": LITERAL}}
    assert variables.all_problems(given, Host("flask_app", vault_key="0123").value) == []


@pytest.mark.parametrize("text", [LITERAL, "  around  ", "-----BEGIN KEY-----\nabc\n", "windows\r\nlines\r\n", ""])
def test_secret_reaches_the_file_to_the_byte(tmp_path: Path, text: str) -> None:
    app = APP | {"secrets": {"key": text}}
    (host,) = containers(app).values()
    found = {file["path"]: file for file in host.value(trust_as_template("{{ __container_service_files }}"))}
    assert found["/etc/vantage/secrets/blog/key"]["content"] == text
    module = load_module(files_module)
    path = tmp_path / "key"
    fake = type("Module", (), {"tmpdir": str(tmp_path)})()
    writer = module.FileSet(fake)
    path.write_bytes(Path(writer.write_temporary({"content": text})).read_bytes())
    assert path.read_bytes() == text.encode()
    assert module.read(str(path)) == text, "a second run changes nothing"


# Environment variables -------------------------------------------------------------------------------------------------

ENV = """
# a comment

DATABASE_URL=postgres://u:p%40ss@db/x?a=b#c
export TOKEN = abc   # a comment
QUOTED="two\\nlines"
SPACES="  around  "
LITERAL='${TOKEN} $HOME "x" #'
EMPTY=
JOINED=${TOKEN}/${MISSING:-other}
DOLLAR=pa$word
"""
VALUES = {
    "DATABASE_URL": "postgres://u:p%40ss@db/x?a=b#c", "TOKEN": "abc", "SPACES": "  around  ",
    "LITERAL": '${TOKEN} $HOME "x" #', "EMPTY": "", "JOINED": "abc/other", "DOLLAR": "pa$word",
}  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_env_file_is_read_as_people_write_it(tmp_path: Path, newline: str) -> None:
    path = tmp_path / ".env"
    path.write_text(ENV.replace('QUOTED="two\\nlines"\n', ""), newline=newline)
    assert environment.read_env_file(path) == VALUES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nnonsense\n", [":2", "NAME=value"]),
        ("A='open\n", [":1"]),
        ("A=${NOPE}\n", [":1", "NOPE"]),
        ('A=1\nKEY="two\nlines"\n', [":2", "KEY", "secret"]),
        (None, ["env_file", ".env"]),
    ],
)
def test_env_file_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, text: str | None, words: list[str]
) -> None:
    if text is not None:
        (tmp_path / ".env").write_text(text)
    app = APP | {"env_file": str(tmp_path / ".env")}
    (problem,) = [one for one in variables.source_problems(app) if one]
    for word in words:
        assert word in problem


def test_secret_environment_is_in_a_file_of_root_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TOKEN=from-file\nURL=postgres://u:p@db\n")
    app = APP | {"source": str(tmp_path), "env_file": ".env", "secret_environment": {"TOKEN": "0123 $x"}}
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    (host,) = containers(app).values()
    found = {file["path"]: file for file in host.value(trust_as_template("{{ __container_service_files }}"))}
    file = found["/etc/vantage/secrets/blog/.environment"]
    assert file["content"] == "TOKEN=0123 $x\nURL=postgres://u:p@db\n"
    assert (file["mode"], file["secret"]) == ("0400", True)
    assert not {"owner", "group"} & set(file)
    text = unit_of(host.variables)
    assert "--env-file=/etc/vantage/secrets/blog/.environment" in text
    assert "postgres" not in text
    # The app itself does not read it.
    assert "/run/secrets" not in text


def test_compose_reads_the_secret_environment_without_changing_it() -> None:
    app = APP | {"secret_environment": {"TOKEN": "$x"}}
    (host,) = containers(app, "compose").values()
    given = {"places": {"root": "/r", "role": "/r/roles/flask_app", "config": "compose/config"}}
    template = "{{ __container_service | compose_service('', places) }}"
    found = Host("container_service", **host.variables, **given).value(trust_as_template(template))
    assert found["env_file"] == [{"path": "./compose/secrets/blog/.environment", "format": "raw"}]
    assert "$x" not in yaml.safe_dump(dict(found), default_flow_style=True)


def test_env_file_of_a_source_that_no_key_names_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=x\nJWT_KEY=y\nPORT=5000\nFLASK_DEBUG=1\n")
    app = APP | {"source": str(tmp_path)}
    hint = environment.env_hint(app)
    for word in ("DATABASE_URL, JWT_KEY", "env_file", "secret_environment"):
        assert word in hint
    assert "PORT" not in hint
    assert environment.env_hint(app | {"env_file": ".env"}) == ""
    given = {"environment": {"DATABASE_URL": "z"}, "secrets": {"jwt_key": "y"}}
    assert environment.env_hint(app | given) == ""
    warnings = variables.warnings_of({"vantage_apps": [app], "group_names": ["app"]}, lambda value: value)
    assert len(warnings) == 1
    assert warnings[0].startswith("app blog: ")


def test_user_of_the_secret_environment_is_not_replaced() -> None:
    def unit(app: dict[str, Any]) -> str:
        (host,) = containers(app).values()
        return unit_of(host.variables)

    assert "--env=USER=app" in unit(APP)
    assert "USER=" not in unit(APP | {"secret_environment": {"USER": "postgres"}})
