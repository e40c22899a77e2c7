"""A machine on which nothing is installed: molecule's scenario `bare_host`."""

from __future__ import annotations

import functools
import os

import pytest
import testinfra
from machine import Machine, play


@pytest.fixture(scope="session")
def bare() -> Machine:
    name = os.environ.get("VANTAGE_TEST_MACHINE", "vantage-molecule")
    return Machine(testinfra.get_host(f"docker://{name}-bare"))


@pytest.fixture(scope="session")
def run():
    """Runs a playbook on the machine; returns the finished process with its output."""
    return functools.partial(play, os.environ["MOLECULE_INVENTORY_FILE"])
