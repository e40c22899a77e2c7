"""Run the tests: all of them, the unit tests, the dashboards in a browser, the report against faults."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
import yaml

from vantage_tools import lint
from vantage_tools.paths import ROOT, cache_dir
from vantage_tools.process import output, run
from vantage_tools.vm import engine, host_tools
from vantage_tools.vm.cli import DEVELOPMENT, PASS_ON
from vantage_tools.vm.container import SystemContainer, write_inventory
from vantage_tools.waiting import step, url_problem

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIREMENTS = "tools/requirements/browser.txt"

app = typer.Typer()


@app.command(rich_help_panel=DEVELOPMENT)
def test() -> None:
    """Run every test: lint, unit tests, and molecule's machines."""
    step("lint")
    host_tools.install("lint")
    lint.lint()
    step("engine and images")
    engine.get_images()
    log = cache_dir() / "test-one-host.log"
    try:
        # The tests on one host take longest and mostly wait.
        with log.open("w") as file, ThreadPoolExecutor() as beside:
            step(f"molecule: one host, beside the rest (log: {log})")
            one_host = beside.submit(run, "molecule", "test", stdout=file, stderr=file)
            step("unit tests")
            unit()
            for scenario in ("bare_host", "two_hosts"):
                step(f"molecule: {scenario}")
                run("molecule", "test", "--scenario-name", scenario)
            step("molecule: waiting for one host")
    finally:
        typer.echo(log.read_text(errors="replace"))
    one_host.result()
    step("done")


@app.command(rich_help_panel=DEVELOPMENT)
def unit() -> None:
    """Run the unit tests."""
    run("pytest", "-q", "tests/unit")
    run("pytest", "-q", "app/tests")


@app.command("test-report", context_settings=PASS_ON, rich_help_panel=DEVELOPMENT)
def test_report(
    context: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", envvar="KEEP", help="keep the container")] = False,
) -> None:
    """Check that the report names eight faults (20 minutes)."""
    machine = SystemContainer("vantage-test-report")
    engine.get_images()
    machine.up()
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Molecule's variables fit; the host's name differs.
            variables = (ROOT / "molecule/default/group_vars/all/main.yml").read_text(encoding="utf-8")
            write_inventory(Path(folder), machine.name, yaml.safe_load(variables))
            run("ansible-playbook", "-i", folder, "site.yml")
            environment = {"VANTAGE_TEST_HOST": f"docker://{machine.name}", "VANTAGE_TEST_INVENTORY": folder}
            faults = "tests/integration/test_report_faults.py"
            run("pytest", "-v", "-m", "long", faults, *context.args, env=os.environ | environment)
    finally:
        if not keep:
            machine.down()


@app.command("test-browser", context_settings=PASS_ON, rich_help_panel=DEVELOPMENT)
def test_browser(context: typer.Context) -> None:
    """Check the dashboards in a browser; `bench` measures them."""
    url = os.environ.setdefault("VANTAGE_GRAFANA_URL", "http://127.0.0.1:3000")
    browser = os.environ.get("VANTAGE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        return print("test-browser: skipped: chromium is not installed. Install it, or set VANTAGE_CHROMIUM.")
    if url_problem(f"{url}/api/health"):
        return print(f"test-browser: skipped: Grafana does not answer at {url}. Fix: make up")
    os.environ["VANTAGE_CHROMIUM"] = browser
    if "VANTAGE_GRAFANA_PASSWORD" not in os.environ:
        os.environ["VANTAGE_GRAFANA_PASSWORD"] = output(sys.executable, "-m", "vantage_tools", "password").strip()
    run("pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", REQUIREMENTS)
    if context.args[:1] == ["bench"]:
        return run(sys.executable, "tests/browser/bench.py", *context.args[1:])
    return run("pytest", "-q", "tests/browser", *context.args)
