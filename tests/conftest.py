"""Makes the programs that roles install on a host importable, and reaches the machine under test.

That is by default molecule's system container, or any host testinfra reaches: VANTAGE_TEST_HOST is its testinfra host
specification, VANTAGE_TEST_INVENTORY the inventory that deployed it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import testinfra
from machine import Machine, play

for folder in sorted(Path(__file__).resolve().parents[1].glob("roles/*/files")):
    sys.path.append(str(folder))


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
    return functools.partial(play, inventory)


@pytest.fixture
def reboot(vm: Machine):
    """Restarts the machine and waits until systemd is up; a system container alone can do it from here."""
    kind, _, name = os.environ.get("VANTAGE_TEST_HOST", "docker://vantage-molecule").partition("://")
    if kind != "docker":
        pytest.skip("`make test-vm` reboots the VM itself")

    def run() -> None:
        subprocess.run([sys.executable, "-m", "vantage_tools", "container", "restart", name], check=True)

    return run
