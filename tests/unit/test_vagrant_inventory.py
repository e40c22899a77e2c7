"""The Vagrant inventory turns what `vagrant ssh-config` prints into Ansible's variables."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "inventory" / "vagrant" / "connection.py"

SSH_CONFIG = """\
Host vantage
  HostName 192.168.121.7
  User vagrant
  Port 2222
  UserKnownHostsFile /dev/null
  IdentityFile "/home/some one/.vagrant.d/boxes/key"
  IdentityFile /home/other/key

"""


@pytest.fixture
def connection() -> ModuleType:
    """The inventory script as a module; it is not in a package, so that Ansible can run it."""
    spec = importlib.util.spec_from_file_location("vagrant_connection", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_with_vagrant(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run the inventory with a stand-in for vagrant that consists of the lines of `script`."""
    vagrant = folder / "vagrant"
    vagrant.write_text(f"#!/bin/sh\n{script}\n")
    vagrant.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--list"], env=environment, capture_output=True, text=True, check=False
    )


def test_ssh_config_becomes_connection_variables(connection: ModuleType) -> None:
    variables = connection.connection_variables(SSH_CONFIG)
    assert variables["ansible_host"] == "192.168.121.7"
    assert variables["ansible_port"] == 2222
    assert variables["ansible_user"] == "vagrant"
    assert variables["ansible_ssh_private_key_file"] == "/home/some one/.vagrant.d/boxes/key"
    assert "StrictHostKeyChecking=no" in variables["ansible_ssh_common_args"]


def test_a_box_with_a_password_has_no_key(connection: ModuleType) -> None:
    lines = [line for line in SSH_CONFIG.splitlines() if "IdentityFile" not in line]
    assert "ansible_ssh_private_key_file" not in connection.connection_variables("\n".join(lines))


def test_a_running_machine_is_listed_with_its_variables(tmp_path: Path) -> None:
    answer = run_with_vagrant(tmp_path, f"cat <<'END'\n{SSH_CONFIG}END")
    assert answer.returncode == 0, answer.stderr
    inventory = json.loads(answer.stdout)
    assert inventory["all"]["hosts"] == ["vantage"]
    assert inventory["_meta"]["hostvars"]["vantage"]["ansible_host"] == "192.168.121.7"


def test_without_a_machine_the_host_name_says_what_to_do(tmp_path: Path) -> None:
    answer = run_with_vagrant(tmp_path, "echo 'not created' >&2; exit 1")
    assert answer.returncode == 0
    host = json.loads(answer.stdout)["_meta"]["hostvars"]["vantage"]["ansible_host"]
    assert "run-vagrant-up" in host
    assert host.endswith(".invalid"), "a name that resolves could be another machine"
    assert "not created" in answer.stderr


def test_without_vagrant_the_host_name_says_so(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), "--list"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0
    assert "vagrant-is-not-installed" in answer.stdout


def test_the_machine_is_in_both_groups_and_the_script_can_be_run() -> None:
    groups = yaml.safe_load((SCRIPT.parent / "hosts.yml").read_text())
    for group in ("app", "monitoring"):
        assert list(groups[group]["hosts"]) == ["vantage"]
    assert SCRIPT.stat().st_mode & stat.S_IXUSR, "Ansible runs it only with its executable bit"


def test_forwarded_ports_reach_the_services() -> None:
    """A port that a provider forwards arrives at the machine's outer address, where loopback does not listen."""
    variables = yaml.safe_load((SCRIPT.parent / "group_vars" / "all" / "main.yml").read_text())
    assert variables["vantage_publish_address"] == "0.0.0.0"
