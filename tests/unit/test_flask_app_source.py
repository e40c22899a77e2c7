"""What of an app's folder reaches the builder."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.template import trust_as_template
from rendering import ROLES, Host


def call(name: str, folder: Path) -> object:
    return Host("flask_app", folder=str(folder)).value(trust_as_template("{{ folder | " + name + " }}"))


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_git_history_venv_and_env_files_are_not_packed(tmp_path: Path) -> None:
    write(tmp_path, "Dockerfile", "src/app.py", "dist/page.js", ".dockerignore")
    before = call("source_digest", tmp_path)
    write(tmp_path, "env/pyvenv.cfg", "env/lib/x.py", "src/node_modules/x.js", ".env.local")
    write(tmp_path, ".git/config", ".venv/bin/python", ".env", "src/.env", "src/__pycache__/app.pyc", "x.egg-info/PKG")
    assert call("source_files", tmp_path) == [".dockerignore", "Dockerfile", "dist/page.js", "src/app.py"]
    assert call("source_digest", tmp_path) == before


def test_every_file_that_reaches_the_builder_changes_the_digest(tmp_path: Path) -> None:
    write(tmp_path, "Dockerfile", "dist/page.js")
    before = call("source_digest", tmp_path)
    (tmp_path / "dist/page.js").write_text("new")
    after = call("source_digest", tmp_path)
    assert after != before
    (tmp_path / "dist/page.js").chmod(0o755)
    assert call("source_digest", tmp_path) != after, "a script that may run now is another source"


def test_source_that_is_no_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"missing is not a directory"):
        call("source_digest", tmp_path / "missing")


@pytest.mark.parametrize(("instrument", "module"), [("none", "flask_vantage.serve"), ("auto", "flask_vantage.auto")])
def test_auto_starts_the_app_by_another_module_of_the_base_image(instrument: str, module: str) -> None:
    recipe = {"base": "/srv/app", "instrument": instrument, "object": "app:app"}
    text = Host("flask_app").render(ROLES / "flask_app/templates/Dockerfile.j2", __flask_app_recipe=recipe)
    assert f'ENTRYPOINT ["/opt/app/bin/python3", "-m", "{module}"]' in text
