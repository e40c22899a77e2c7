"""A browser and a Grafana to look at; without either, these tests are skipped and say what is missing.

VANTAGE_GRAFANA_URL and VANTAGE_GRAFANA_PASSWORD name the Grafana, VANTAGE_SHOP_URL and VANTAGE_WAREHOUSE_URL the demo shop,
VANTAGE_CHROMIUM the browser's program, VANTAGE_PICTURES a folder for what was seen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from grafana import Grafana
from playwright.sync_api import sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# No sandbox, because root may run the tests; the browser opens only this Grafana.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


class Missing(Exception):
    """Something that these tests need is not there."""


@contextmanager
def a_grafana() -> Iterator[Grafana]:
    """The Grafana that the environment names, in a browser; raises Missing."""
    program = os.environ.get("VANTAGE_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not program:
        raise Missing("chromium not found on PATH. Install it, or set VANTAGE_CHROMIUM.")
    password = os.environ.get("VANTAGE_GRAFANA_PASSWORD")
    if not password:
        raise Missing(
            "VANTAGE_GRAFANA_PASSWORD is not set: is there a Grafana? `make test-browser` asks for its password"
        )
    pictures = os.environ.get("VANTAGE_PICTURES")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=SWITCHES)
        try:
            url = os.environ.get("VANTAGE_GRAFANA_URL", "http://127.0.0.1:3000")
            shop = os.environ.get("VANTAGE_SHOP_URL", "http://127.0.0.1:8000")
            warehouse = os.environ.get("VANTAGE_WAREHOUSE_URL", "http://127.0.0.1:8001")
            yield Grafana(playwright, browser, url, password, shop, warehouse, Path(pictures) if pictures else None)
        finally:
            browser.close()


@pytest.fixture(scope="session")
def grafana() -> Iterator[Grafana]:
    """The Grafana under test, in a real browser."""
    try:
        with a_grafana() as found:
            yield found
    except Missing as missing:
        pytest.skip(str(missing))
