"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest
from rendering import load_plugins


@pytest.fixture(scope="session", autouse=True)
def plugins() -> None:
    load_plugins()
