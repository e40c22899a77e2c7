"""A machine as its own controller, with the Ansible for its own Python, which may be newer than the tests' own.

`make test-systems` runs it: beside a controller with Python 3.11 the newer systems show the current Ansible.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from machine import BIN, ROOT, Machine

# Where packages come from; the controller's other settings of pip do not hold on the machine.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "cert")


def pip_settings() -> dict[str, str]:
    """Return the controller's settings of pip by name."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    values = {key.rpartition(".")[2]: value for key, _, value in (line.partition("=") for line in lines)}
    return {name: " ".join(ast.literal_eval(values[name]).split()) for name in PIP_SETTINGS if name in values}


@pytest.fixture
def container(tmp_path: Path, inventory: str) -> str:
    """Copy the project, the inventory and pip's certificates into the machine's /root; return its name."""
    kind, _, name = os.environ.get("VANTAGE_TEST_HOST", "docker://vantage-molecule").partition("://")
    if kind != "docker":
        pytest.skip("the project is copied by docker cp")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    tar = ["tar", "--create", f"--file={tmp_path}/project.tar.gz", "--gzip", "--null", "--files-from=-"]
    subprocess.run(tar, cwd=ROOT, input=tracked, check=True)
    command = [str(BIN / "ansible-inventory"), "-i", inventory, "--list"]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    hosts = {
        host: {key: value for key, value in variables.items() if not key.startswith("ansible_")}
        for host, variables in shown["_meta"]["hostvars"].items()
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({group: {"hosts": hosts} for group in ("app", "monitoring")}))
    certificates = Path(pip_settings().get("cert", ""))
    (tmp_path / "ca.pem").write_bytes(certificates.read_bytes() if certificates.is_file() else b"")
    for path in (*tmp_path.iterdir(), ROOT / "tools/machines/provision.py"):
        subprocess.run(["docker", "cp", str(path), f"{name}:/root/{path.name}"], check=True)
    return name


def is_python_of_current_ansible(vm: Machine) -> bool:
    return vm.sh("python3 -c 'import sys; print(sys.version_info >= (3, 12))'").strip() == "True"


@pytest.mark.timeout(1800)
def test_the_other_ansible_changes_nothing_and_verifies(vm: Machine, container: str) -> None:
    current = is_python_of_current_ansible(vm)
    if current == (sys.version_info >= (3, 12)):
        pytest.skip("its Python takes the same Ansible as the controller's")
    settings = pip_settings()
    if settings.get("cert"):
        settings["cert"] = "/root/ca.pem"
    environment = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()} | {
        "VANTAGE_PROJECT": "/root/project.tar.gz",
        "VANTAGE_INVENTORY": "/root/hosts.yml",
        "VANTAGE_IMAGES": "/var/cache/vantage/images",
    }
    words = [f"--env={name}={value}" for name, value in environment.items()]
    command = ["docker", "exec", *words, container, "python3", "/root/provision.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "state: done" in vm.sh("cat /opt/vantage/status")
    # site.yml and verify.yml.
    recaps = vm.sh("grep ' ok=' /var/log/vantage-provision.log | tail -n 2").splitlines()
    assert len(recaps) == 2
    assert all("changed=0 " in line and "failed=0 " in line for line in recaps), recaps
    pins = (ROOT / "tools/requirements/ansible.txt").read_text()
    sign = ">=" if current else "<"
    (pinned,) = re.findall(rf"^ansible-core==(\S+) ; python_version {sign} '3.12'", pins, re.MULTILINE)
    assert vm.sh("/opt/vantage/venv/bin/python3 -c 'import ansible; print(ansible.__version__)'").strip() == pinned
