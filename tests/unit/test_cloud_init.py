"""The cloud-init file holds what scripts/provision-here is, and cloud-init's own schema takes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT

SCRIPT = ROOT / "scripts/cloud-init"
COMMITTED = ROOT / "cloud-init/user-data"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtest somebody@example.org"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def written(*arguments: str) -> dict[str, Any]:
    answer = run(*arguments)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("#cloud-config\n")
    return dict(yaml.safe_load(answer.stdout))


def files(config: dict[str, Any]) -> dict[str, str]:
    return {entry["path"]: entry["content"] for entry in config["write_files"]}


def shell_value(settings: str, name: str) -> str:
    command = f'{settings}\nprintf %s "${name}"'
    return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout


def test_the_committed_file_is_up_to_date() -> None:
    assert run("check").returncode == 0, "run: scripts/cloud-init write"


def test_it_runs_the_one_script_that_all_ways_share() -> None:
    config = yaml.safe_load(COMMITTED.read_text())
    assert files(config)["/opt/vantage/provision"] == (ROOT / "scripts/provision-here").read_text()
    assert config["runcmd"] == [["/opt/vantage/provision"]]


@pytest.mark.skipif(
    shutil.which("cloud-init") is None, reason="cloud-init is not installed here (apt-get install cloud-init)"
)
@pytest.mark.parametrize("extended", [False, True])
def test_cloud_inits_own_schema_takes_it(tmp_path: Path, extended: bool) -> None:
    path = COMMITTED
    if extended:
        (tmp_path / "key.pub").write_text(KEY)
        (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        options = ["--carry-project", "--ssh-key", str(tmp_path / "key.pub"), "--ca-cert", str(tmp_path / "ca.pem")]
        assert run("seed", str(tmp_path / "seed"), *options).returncode == 0
        path = tmp_path / "seed/user-data"
    answer = subprocess.run(
        ["cloud-init", "schema", "--config-file", str(path)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Valid" in answer.stdout


def test_settings_survive_the_shell(tmp_path: Path) -> None:
    url = "https://example.org/a b/vantage.tar.gz?token='x'&y=$HOME"
    settings = files(written("user-data", "--project", url))["/opt/vantage/settings"]
    assert shell_value(settings, "VANTAGE_PROJECT") == url


def test_variables_and_key_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "my.yml").write_text("---\nvantage_demo_faults: true\n")
    (tmp_path / "key.pub").write_text(KEY + "\n")
    config = written(
        "user-data", "--project", "x", "--vars", str(tmp_path / "my.yml"), "--ssh-key", str(tmp_path / "key.pub")
    )
    assert yaml.safe_load(files(config)["/opt/vantage/vars.yml"]) == {"vantage_demo_faults": True}
    assert config["ssh_authorized_keys"] == [KEY]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["user-data"], "--project is missing"),
        (["seed", "OUT"], "nothing says where the project comes from"),
        (["seed", "OUT", "--project", "x", "--carry-images", "EMPTY"], "there is no index.json in"),
        (["seed", "EMPTY/none/seed.iso", "--project", "x"], "none is no folder, so seed.iso cannot go there"),
        (["user-data", "--project", "x", "--vars", "EMPTY/none.yml"], "none.yml"),
        (["user-data", "--project", "x", "--vars", "LIST"], "holds no variables"),
        (["user-data", "--project", "x", "--ssh-key", "PRIVATE"], "is a private key"),
        (["user-data", "--project", "x", "--ca-cert", "LIST"], "holds no certificate"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "LIST").write_text("- a\n")
    (tmp_path / "PRIVATE").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    answer = run(*[str(tmp_path / word) if word.split("/")[0].isupper() else word for word in arguments])
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "Fix:" in answer.stderr
    assert answer.stdout == ""
    assert not (tmp_path / "OUT").exists()


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no git checkout")
def test_a_seed_carries_the_project_and_the_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "index.json").write_text('{"docker.io/grafana/loki:3": {"file": "loki.tar.gz"}}')
    for name in ("vars.yml", "loki.tar.gz", "system.tar.gz"):
        (images / name).write_text("")
    answer = run("seed", str(tmp_path / "seed"), "--carry-project", "--carry-images", str(images))
    assert answer.returncode == 0, answer.stderr
    config = yaml.safe_load((tmp_path / "seed/user-data").read_text())
    settings = files(config)["/opt/vantage/settings"]
    ((label, mounted, *_),) = config["mounts"]
    assert label == "LABEL=cidata"
    for name, place in (("VANTAGE_PROJECT", "project.tar.gz"), ("VANTAGE_IMAGES", "images")):
        assert shell_value(settings, name) == f"{mounted}/{place}"
        assert (tmp_path / "seed" / place).exists()
    carried = {path.name for path in (tmp_path / "seed/images").iterdir()}
    assert carried == {"index.json", "vars.yml", "loki.tar.gz"}
    assert "instance-id: vantage-" in (tmp_path / "seed/meta-data").read_text()
