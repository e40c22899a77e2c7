"""Run the tests: all of them, the unit tests, the dashboards in a browser, the report against faults."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
import yaml

from vantage_tools import lint
from vantage_tools.errors import UserError
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
    scenarios: dict[str, subprocess.Popen[bytes]] = {}
    # Its threads print how each scenario ends.
    with ThreadPoolExecutor(max_workers=4) as watch:
        try:
            # The longest ones, which mostly wait, run beside the unit tests.
            for name in ("default", "apps"):
                scenarios[name] = start_scenario(name, watch)
            step("unit tests")
            unit()
            for name in ("bare_host", "two_hosts"):
                scenarios[name] = start_scenario(name, watch)
                scenarios[name].wait()
            failed = [name for name, process in scenarios.items() if process.wait()]
        except BaseException:
            step("failed: removing the machines")
            end(scenarios)
            raise
    # The failed ones last, where a terminal stops.
    for name in sorted(scenarios, key=failed.__contains__):
        typer.echo(log_of(name).read_text(errors="replace"))
    if failed:
        raise UserError(f"molecule: failed scenarios: {', '.join(failed)}.", "see the last output, or the log files.")
    step("done")


def log_of(scenario: str) -> Path:
    return cache_dir() / f"test-{scenario}.log"


def start_scenario(name: str, watch: ThreadPoolExecutor) -> subprocess.Popen[bytes]:
    """Start a scenario of molecule in the background; print its exit code when it ends."""
    step(f"molecule: {name}, in the background (log: {log_of(name)})")
    with log_of(name).open("w") as file:
        # A session of its own, so that a signal reaches all its programs.
        process = subprocess.Popen(
            ["molecule", "test", "--scenario-name", name], cwd=ROOT, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    watch.submit(lambda: step(f"molecule: {name}: exit code {process.wait()}"))
    return process


def end(scenarios: dict[str, subprocess.Popen[bytes]]) -> None:
    """End the scenarios and remove their machines."""
    for process in scenarios.values():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for name, process in scenarios.items():
        process.wait()
        with log_of(name).open("a") as file:
            run("molecule", "destroy", "--scenario-name", name, stdout=file, stderr=file)


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
