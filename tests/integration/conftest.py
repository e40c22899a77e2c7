"""The order of the tests on one host."""

from __future__ import annotations

import pytest

# They wait for rules that are evaluated once a minute, for which the tests before them send the requests.
LAST = ("test_alerts.py", "test_dashboards.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name in LAST)
