"""The cloud-init file embeds the provisioning program and passes cloud-init's own schema."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from vantage_tools import cloud_init
from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtest admin@example.org"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def parse(text: str) -> dict[str, Any]:
    assert text.startswith("#cloud-config\n")
    return dict(yaml.safe_load(text))


def files(config: dict[str, Any]) -> dict[str, str]:
    return {entry["path"]: entry["content"] for entry in config["write_files"]}


def shell_value(settings: str, name: str) -> str:
    command = f'{settings}\nprintf %s "${name}"'
    return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Files for the options."""
    texts = {"vars.yml": "---\nvantage_demo_faults: true\n", "key.pub": KEY + "\n", "ca.pem": CERTIFICATE}
    texts |= {"list.yml": "- a\n", "private": "-----BEGIN OPENSSH PRIVATE KEY-----\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_it_runs_the_provisioning_program() -> None:
    config = parse(cloud_init.user_data("x"))
    assert files(config)["/opt/vantage/provision"] == (ROOT / "tools/machines/provision.py").read_text()
    assert config["runcmd"] == [["/opt/vantage/provision"]]


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="cloud-init is not installed here")
def test_a_file_with_every_option_or_none_is_valid_for_cloud_init(inputs: Path) -> None:
    path = inputs / "user-data"
    options = (inputs / "vars.yml", inputs / "key.pub", inputs / "ca.pem", cloud_init.MOUNT)
    for text in (cloud_init.user_data("x"), cloud_init.user_data("x", "", *options)):
        path.write_text(text)
        answer = subprocess.run(
            ["cloud-init", "schema", "--config-file", str(path)], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
    assert parse(text)["ca_certs"]["trusted"] == [CERTIFICATE]


def test_settings_survive_the_shell() -> None:
    url = "https://example.org/a b/vantage.tar.gz?token='x'&y=$HOME"
    settings = files(parse(cloud_init.user_data(url)))["/opt/vantage/settings"]
    assert shell_value(settings, "VANTAGE_PROJECT") == url


def test_variables_and_key_are_included(inputs: Path) -> None:
    config = parse(cloud_init.user_data("x", "", inputs / "vars.yml", inputs / "key.pub"))
    assert yaml.safe_load(files(config)["/opt/vantage/vars.yml"]) == {"vantage_demo_faults": True}
    assert config["ssh_authorized_keys"] == [KEY]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variables": "list.yml"}, "--vars"),
        ({"ssh_key": "private"}, "--ssh-key"),
        ({"ca_cert": "list.yml"}, "--ca-cert"),
    ],
)
def test_an_invalid_file_is_named(inputs: Path, options: dict[str, str], named: str) -> None:
    with pytest.raises(UserError, match=named) as error:
        cloud_init.user_data("x", **{name: inputs / file for name, file in options.items()})  # type: ignore[arg-type]
    assert error.value.fix


def test_a_seed_without_a_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="project"):
        cloud_init.seed(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_image_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"docker.io/grafana/loki:3": {"file": "loki.tar.gz"}}')
    (tmp_path / "vars.yml").touch()
    with pytest.raises(UserError, match=r"loki\.tar\.gz") as error:
        cloud_init.link_images(tmp_path, tmp_path / "linked")
    assert error.value.fix


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is not a git checkout")
def test_a_seed_carries_the_project_and_the_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "index.json").write_text('{"docker.io/grafana/loki:3": {"file": "loki.tar.gz"}}')
    for name in ("vars.yml", "loki.tar.gz", "system.tar.gz"):
        (images / name).write_text("")
    cloud_init.seed(tmp_path / "seed", carry_project=True, carry_images=images)
    config = parse((tmp_path / "seed/user-data").read_text())
    settings = files(config)["/opt/vantage/settings"]
    ((label, mounted, *_),) = config["mounts"]
    assert label == "LABEL=cidata"
    for name, place in (("VANTAGE_PROJECT", "project.tar.gz"), ("VANTAGE_IMAGES", "images")):
        assert shell_value(settings, name) == f"{mounted}/{place}"
        assert (tmp_path / "seed" / place).exists()
    # Nothing else that lies in the images' directory.
    assert {path.name for path in (tmp_path / "seed/images").iterdir()} == {"index.json", "vars.yml", "loki.tar.gz"}
    assert "instance-id: vantage-" in (tmp_path / "seed/meta-data").read_text()


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed here")
def test_a_seed_is_an_iso_with_the_label_of_nocloud(tmp_path: Path) -> None:
    cloud_init.seed(tmp_path / "seed.iso", project="x")
    # The volume id of ISO 9660.
    with (tmp_path / "seed.iso").open("rb") as file:
        file.seek(16 * 2048 + 40)
        assert file.read(32).decode().strip() == "cidata"
