"""The VM under test: by default molecule's system container, or any host testinfra reaches.

VANTAGE_TEST_HOST is a testinfra host specification, VANTAGE_TEST_INVENTORY the inventory that deployed it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import testinfra
from machine import Machine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def vm() -> Machine:
    """The machine, with the services that its units say."""
    return Machine(testinfra.get_host(os.environ.get("VANTAGE_TEST_HOST", "docker://vantage-molecule")))


@pytest.fixture(scope="session")
def inventory() -> str:
    """Inventory file or folder that the machine was deployed with."""
    given = os.environ.get("VANTAGE_TEST_INVENTORY") or os.environ.get("MOLECULE_INVENTORY_FILE")
    if not given:
        pytest.fail("set VANTAGE_TEST_INVENTORY to the inventory of the machine under test, or run `molecule verify`")
    return str(Path(given).resolve())


@pytest.fixture(scope="session")
def playbook(inventory: str):
    """Runs a playbook on the machine; returns the finished process with its output."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
        }
        return subprocess.run(
            ["ansible-playbook", "-i", inventory, str(ROOT / name), *arguments],
            check=False, capture_output=True, text=True, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@pytest.fixture
def reboot(vm: Machine):
    """Restarts the machine and waits until systemd is up; a system container alone can do it from here."""
    kind, _, name = os.environ.get("VANTAGE_TEST_HOST", "docker://vantage-molecule").partition("://")
    if kind != "docker":
        pytest.skip("scripts/test-vm reboots a true VM itself")

    def run() -> None:
        subprocess.run([str(ROOT / "scripts/system-container"), "restart", name], check=True)

    return run
