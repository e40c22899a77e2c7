"""A machine on which nothing was installed yet: check mode tells, refusals leave no trace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra
from machine import Machine

ROOT = Path(__file__).resolve().parents[2]
NAME = "vantage-bare"
TRACES = "ls -d /etc/vantage /var/lib/vantage /usr/local/lib/vantage /usr/bin/docker /etc/systemd/system/vantage* 2>/dev/null; true"


@pytest.fixture(scope="module")
def bare() -> Iterator[Machine]:
    container = str(ROOT / "scripts/system-container")
    subprocess.run([container, "up", NAME], check=True, capture_output=True)
    yield Machine(testinfra.get_host(f"docker://{NAME}"))
    subprocess.run([container, "down", NAME], check=True, capture_output=True)


@pytest.fixture(scope="module")
def bare_arguments(inventory: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Makes the playbook run on the bare machine, with the variables of the one under test."""
    shown = subprocess.run(
        ["ansible-inventory", "-i", inventory, "--list"], check=True, capture_output=True, text=True
    ).stdout
    (variables,) = json.loads(shown)["_meta"]["hostvars"].values()
    variables = {
        k: v
        for k, v in variables.items()
        if k.startswith(("ansible_conn", "vantage_", "grafana_enabled")) or k.endswith("_image")
    }
    folder = tmp_path_factory.mktemp("inventory")
    hosts = {group: {"hosts": {NAME: variables}} for group in ("app", "monitoring")}
    (folder / "hosts.yml").write_text(json.dumps(hosts))
    return ["-i", str(folder / "hosts.yml"), "--limit", NAME]


def test_check_mode_ends_without_error_and_changes_nothing(bare: Machine, bare_arguments: list[str], playbook) -> None:
    result = playbook("site.yml", "--check", "--diff", *bare_arguments)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    assert "changed=0 " not in result.stdout, "on a bare machine there is something to do"
    assert bare.sh(TRACES).strip() == ""


def test_too_little_disk_is_refused(bare: Machine, bare_arguments: list[str], playbook) -> None:
    result = playbook("site.yml", "-e", '{"preflight_disk_mb": 99999999}', *bare_arguments)
    assert result.returncode != 0
    for words in ("MiB free below /var", "99999999", "larger disk", "Nothing was changed"):
        assert words in " ".join(result.stdout.split()), result.stdout
    assert bare.sh(TRACES).strip() == ""


def test_unsupported_system_is_refused_with_those_that_are(bare: Machine, bare_arguments: list[str], playbook) -> None:
    bare.sh(
        "sed -i 's/^VERSION_ID=.*/VERSION_ID=\"10\"/; s/bookworm/buster/g' /usr/lib/os-release; echo 10.13 > /etc/debian_version"
    )
    result = playbook("site.yml", *bare_arguments)
    assert result.returncode != 0
    for words in ("runs Debian 10", "not supported", "Debian 12", "Nothing was changed"):
        assert words in " ".join(result.stdout.split()), result.stdout
    assert bare.sh(TRACES).strip() == ""
