"""A browser and a Grafana to look at, which `make test-browser` names in the environment.

VANTAGE_CHROMIUM is the browser's program; VANTAGE_GRAFANA_URL and VANTAGE_GRAFANA_PASSWORD name the Grafana, VANTAGE_SHOP_URL
and VANTAGE_WAREHOUSE_URL the demo shop, VANTAGE_PICTURES a folder for screenshots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from grafana import Grafana
from playwright.sync_api import sync_playwright

# No sandbox, because root may run the tests; the browser opens this Grafana alone.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@contextmanager
def a_grafana() -> Iterator[Grafana]:
    """Open the Grafana that the environment names in a browser."""
    url = os.environ.get("VANTAGE_GRAFANA_URL", "http://127.0.0.1:3000")
    shop = os.environ.get("VANTAGE_SHOP_URL", "http://127.0.0.1:8000")
    warehouse = os.environ.get("VANTAGE_WAREHOUSE_URL", "http://127.0.0.1:8001")
    password, pictures = os.environ["VANTAGE_GRAFANA_PASSWORD"], os.environ.get("VANTAGE_PICTURES")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["VANTAGE_CHROMIUM"], args=SWITCHES)
        try:
            yield Grafana(playwright, browser, url, password, shop, warehouse, Path(pictures) if pictures else None)
        finally:
            browser.close()


@pytest.fixture(scope="session")
def grafana() -> Iterator[Grafana]:
    """The Grafana under test, in a real browser."""
    if missing := {"VANTAGE_CHROMIUM", "VANTAGE_GRAFANA_PASSWORD"} - os.environ.keys():
        pytest.skip(f"not set: {', '.join(sorted(missing))}. Fix: make test-browser")
    with a_grafana() as found:
        yield found
