"""docker-compose.yml says of each service what its unit says, and what it needs is there."""

from __future__ import annotations

import copy
import re
import shlex
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from compose.roles import of_site
from compose.services import COMMITTED
from rendering import ROLES, ROOT, Host, load, specs
from test_roles import SERVICES, service_variables

from compose import __main__ as compose
from compose import local, settings

DOCUMENT = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SETTINGS = {
    "inventory_hostname": "laptop",
    "groups": {"all": ["laptop"], "app": ["laptop"], "monitoring": ["laptop"]},
    "hostvars": {"laptop": {}},
    "vantage_demo_faults": True,
}


def unit(variables: dict[str, Any], role: str) -> str:
    """The unit's text, by the template that a host gets, with what a laptop has no units for left out."""
    host = Host(role, **SETTINGS)
    host.variables |= load(ROLES / "container_service/defaults/main.yml") | variables | settings.OF_LAPTOP
    return Host("container_service", **host.variables).render(ROLES / "container_service/templates/unit.service.j2")


def units() -> dict[str, str]:
    """The text of every unit, by service."""
    found = {role.replace("_", "-"): unit(service_variables(role), role) for role in SERVICES}
    variables = service_variables("flask_app")
    host = Host("flask_app", **SETTINGS)
    apps = host.value(host.variables["vantage_apps"])
    for app, service in zip(apps, host.value(trust_as_template("{{ vantage_apps | app_services }}")), strict=True):
        found[app["name"]] = unit(variables | {"__flask_app": app, "__flask_app_service": service}, "flask_app")
    return found


class Command:
    """`docker run` of a unit: its options, each with all its values, the image and the image's own arguments."""

    def __init__(self, text: str) -> None:
        lines = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", text, re.MULTILINE)
        assert lines is not None
        # systemd doubles what it would else replace.
        words = shlex.split(lines[1].replace("\\\n", " ").replace("%%", "%").replace("$$", "$"))
        options = words[2:]
        self.options: dict[str, list[str]] = {}
        while options and options[0].startswith("--"):
            key, _, value = options.pop(0)[2:].partition("=")
            self.options.setdefault(key, []).append(value)
        self.image, *self.arguments = options

    def one(self, name: str) -> str:
        (value,) = self.options[name]
        return value


@pytest.fixture(scope="module")
def commands() -> dict[str, Command]:
    return {name: Command(text) for name, text in units().items()}


def test_every_service_of_the_playbook_is_there(commands: dict[str, Command]) -> None:
    assert set(DOCUMENT["services"]) - {"prepare"} == set(commands)
    assert set(of_site()) == {*SERVICES, "flask_app"}


@pytest.mark.parametrize("name", [name for name in DOCUMENT["services"] if name != "prepare"])
def test_service_is_what_its_unit_is(commands: dict[str, Command], name: str) -> None:
    service, command = copy.deepcopy(DOCUMENT["services"][name]), commands[name]

    def text(value: Any) -> str:
        return str(value).replace("$$", "$")

    assert service["image"] == command.image
    assert [text(word) for word in service.get("command", [])] == command.arguments
    assert service.get("entrypoint", []) == command.options.get("entrypoint", [])
    assert service["user"] == command.one("user")
    assert service["hostname"] == command.one("hostname")
    assert service["mem_limit"] == command.one("memory")
    assert service["memswap_limit"] == command.one("memory-swap")
    assert service["pids_limit"] == int(command.one("pids-limit"))
    assert service["stop_grace_period"] == command.one("stop-timeout") + "s"
    assert service["read_only"] is ("read-only" in command.options)
    assert service["cap_drop"] == command.options["cap-drop"]
    assert service.get("cap_add", []) == command.options.get("cap-add", [])
    assert service["security_opt"] == command.options["security-opt"]
    assert service.get("group_add", []) == command.options.get("group-add", [])
    assert service["tmpfs"] == command.options["tmpfs"]
    assert service.get("extra_hosts", []) == command.options.get("add-host", [])
    assert service.get("ports", []) == command.options.get("publish", [])
    assert (service.get("network_mode") == "host") == (command.one("network") == "host")
    environment = [f"{key}={text(value)}" for key, value in service.get("environment", {}).items()]
    assert environment == command.options.get("env", [])
    volumes = {volume.split(":")[1]: ":ro" in volume for volume in command.options.get("volume", [])}
    mounted = {mount["target"]: mount.get("read_only", False) for mount in service.get("volumes", [])}
    # On a host the dashboards are copied into the folder of the config.
    mounted.pop("/etc/grafana/provisioning/dashboards/json", None)
    assert mounted == volumes


@pytest.mark.parametrize("name", DOCUMENT["services"])
def test_service_is_hardened_and_seen_by_this_machine_alone(name: str) -> None:
    service = DOCUMENT["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "prepare" else [])
    assert service["security_opt"] == ["no-new-privileges"]
    assert re.fullmatch(r"\d+:\d+", service["user"])
    assert (service["user"] == "0:0") == (name in {"prepare", "promtail"})
    assert service["mem_limit"] and service["pids_limit"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "docker.sock" not in str(service.get("volumes", ""))


def test_no_password_is_written_down() -> None:
    environment = DOCUMENT["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/admin_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in environment
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/compose/secrets/", "/compose/local.yml", "/build/", "/docker-compose.override.yml"} <= set(ignored)


def test_what_is_mounted_is_in_the_repository() -> None:
    for name, service in DOCUMENT["services"].items():
        for mount in service.get("volumes", []):
            source = mount["source"]
            if source.startswith("./") and "secrets" not in source:
                assert (ROOT / source).is_dir(), (name, source)
            if mount["type"] == "bind":
                # Made by Docker where it is missing, it would be empty, and root's.
                assert mount["bind"]["create_host_path"] is False, (name, source)


def test_every_line_is_tagged_with_the_name_of_its_unit() -> None:
    for name, service in DOCUMENT["services"].items():
        if name != "prepare":
            assert service["logging"]["options"]["tag"] == f"vantage-{name}.service"
    config = yaml.safe_load((ROOT / "compose/config/promtail/promtail.yml").read_text(encoding="utf-8"))
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"][0]["labels"]["__path__"] == "/var/lib/docker/containers/*/*-json.log"


def test_a_host_still_reads_its_journal() -> None:
    config = yaml.safe_load(Host("promtail").render(ROLES / "promtail/templates/promtail.yml.j2"))
    (scrape,) = config["scrape_configs"]
    assert scrape["journal"]["path"] == "/var/log/journal"
    stages = [next(iter(stage)) for stage in scrape["pipeline_stages"]]
    assert stages[0] == "regex"
    assert "cri" not in stages
    assert "--collector.systemd" in unit_of_host("node_exporter")


def unit_of_host(role: str) -> str:
    host = Host(role)
    host.variables |= load(ROLES / "container_service/defaults/main.yml") | service_variables(role)
    return Host("container_service", **host.variables).render(ROLES / "container_service/templates/unit.service.j2")


def inventory(folder: Path, hosts: tuple[str, ...] = ("laptop",), **variables: Any) -> Path:
    (folder / "group_vars/all").mkdir(parents=True)
    group = {"hosts": dict.fromkeys(hosts)}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"app": group, "monitoring": group}))
    (folder / "group_vars/all/main.yml").write_text(yaml.safe_dump(variables))
    return folder


def test_a_setting_reaches_the_service_and_its_config(tmp_path: Path) -> None:
    given = settings.of_laptop(inventory(tmp_path, prometheus_memory="1g", prometheus_scrape_interval="5s"))
    document, files, _ = compose.rendered(given, tmp_path, COMMITTED)
    prometheus = document["services"]["prometheus"]
    assert prometheus["mem_limit"] == "1g"
    assert "scrape_interval: 5s" in files[Path("compose/config/prometheus/prometheus.yml")]
    # Else the container would go on with what it read at its start.
    assert prometheus["labels"]["vantage.config"] != DOCUMENT["services"]["prometheus"]["labels"]["vantage.config"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"prometheus_retention_tiem": "1d"}, "Did you mean prometheus_retention_time"),
        ({"prometheus_retention_time": "1d"}, "prometheus_slo_days is 14, but prometheus_retention_time is 1d"),
        ({"grafana_port": "many"}, "argument 'grafana_port'"),
        ({"vantage_apps": [{"name": "Shop", "image": "a:1", "port": 1}]}, "app Shop: name: invalid value 'Shop'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(tmp_path: Path, variables: dict[str, Any], said: str) -> None:
    with pytest.raises(settings.Refused, match=re.escape(said)):
        settings.of_laptop(inventory(tmp_path, **variables))


def test_a_source_that_compose_cannot_build_is_refused(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    (tmp_path / "requirements.txt").write_text("flask\n")
    apps = [{"name": "hello", "source": str(tmp_path), "port": 8000}]
    given = settings.of_laptop(inventory(tmp_path / "inventory", vantage_apps=apps))
    with pytest.raises(settings.Refused, match="without a Dockerfile"):
        compose.rendered(given, tmp_path, COMMITTED)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    document, _, _ = compose.rendered(given, tmp_path, COMMITTED)
    assert document["services"]["hello"]["build"] == {"context": str(tmp_path)}
    assert document["services"]["hello"]["image"] == "vantage/hello:local"


def test_an_inventory_of_two_machines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(settings.Refused, match="has 2 hosts"):
        settings.of_laptop(inventory(tmp_path, hosts=("one", "two")))


def local_document(tmp_path: Path, text: str) -> dict[str, Any]:
    extra = tmp_path / "extra.yml"
    extra.write_text(text)
    document, _, _ = compose.rendered(settings.of_laptop(settings.INVENTORY, [extra]), ROOT, COMMITTED)
    return document


def test_a_service_that_is_left_out_is_not_started(tmp_path: Path) -> None:
    here = local_document(tmp_path, "grafana_enabled: false\n")
    assert "grafana" not in here["services"]


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    _, _, found = compose.rendered(settings.of_laptop(settings.INVENTORY), tmp_path, COMMITTED)
    local.write_secrets(found, "", tmp_path)
    top = tmp_path / local.SECRETS
    password = top / "grafana/admin_password"
    first = password.read_text()
    assert len(first) >= 30
    assert first != (top / "grafana/secret_key").read_text()
    # Readable by a container's user, whom this machine does not know, and yet by nobody else here.
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    assert stat.S_IMODE(password.stat().st_mode) == 0o444
    (top / "alertmanager/gone").write_text("old")
    local.write_secrets(found, "", tmp_path)
    assert password.read_text() == first
    assert not (top / "alertmanager/gone").exists()
    local.write_secrets(found, "given", tmp_path)
    assert password.read_text() == "given"


def test_secrets_of_receivers_come_as_files(tmp_path: Path) -> None:
    extra = tmp_path / "extra.yml"
    extra.write_text("alertmanager_receivers: [{name: team, slack_url: https://example.org/planted}]\n")
    given = settings.of_laptop(settings.INVENTORY, [extra])
    document, files, found = compose.rendered(given, tmp_path, COMMITTED)
    local.write_secrets(found, "", tmp_path)
    assert (tmp_path / local.SECRETS / "alertmanager/team_slack_url").read_text() == "https://example.org/planted"
    assert "planted" not in str(document) + "".join(files.values())


def test_the_verifier_finds_the_password_where_it_is_made() -> None:
    given = settings.of_laptop(settings.INVENTORY)
    assert "verify_grafana_password_file" in specs("verify")["main"]["options"]
    path = Host("verify", **given).value(given["verify_grafana_password_file"])
    assert Path(path).resolve() == (ROOT / local.SECRETS / "grafana/admin_password").resolve()
