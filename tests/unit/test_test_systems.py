"""scripts/test-systems runs what can be had and says of the rest why not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from rendering import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing real is started: each program notes its call."""
    project = tmp_path / "project"
    (project / "scripts").mkdir(parents=True)
    (project / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/test-systems", project / "scripts")
    programs = {
        "scripts/engine": "exit 0",
        # One system's packages cannot be had.
        ".venv/bin/vantage": 'case "$*" in "images load system-ubuntu2604") echo "mmdebstrap failed"; exit 1 ;; esac',
        # Another one's second run changes something.
        ".venv/bin/molecule": 'echo "$VANTAGE_SYSTEM $*" >>calls; [ "$VANTAGE_SYSTEM $*" != "ubuntu2204 idempotence" ]',
        ".venv/bin/pytest": "exit 0",
    }
    for name, text in programs.items():
        (project / name).write_text(f"#!/bin/sh\n{text}\n")
        (project / name).chmod(0o755)
    return project


def run(checkout: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VANTAGE_", "MOLECULE_"))}
    return subprocess.run(
        [str(checkout / "scripts/test-systems"), *arguments],
        env={**kept, "VANTAGE_CACHE": str(checkout / "cache"), **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_that_fails_fails_the_whole_and_one_that_cannot_be_had_does_not(checkout: Path) -> None:
    answer = run(checkout)
    table = {line.split()[0]: line for line in answer.stdout.splitlines()}
    assert answer.returncode == 1
    assert {name: line.split()[1] for name, line in table.items()} == {
        "debian12": "ok",
        "debian13": "ok",
        "ubuntu2204": "FAILED",
        "ubuntu2404": "ok",
        "ubuntu2604": "skipped",
        "rhel9": "skipped",
    }
    assert "its packages cannot be had" in table["ubuntu2604"]
    assert "VANTAGE_SYSTEM_IMAGE" in table["rhel9"]
    calls = (checkout / "calls").read_text().splitlines()
    # What failed is removed all the same.
    assert [call for call in calls if call.startswith("ubuntu2204")][-1] == "ubuntu2204 destroy"
    assert not [call for call in calls if call.startswith(("ubuntu2604", "rhel9"))]


def test_the_named_ones_alone_are_run(checkout: Path) -> None:
    answer = run(checkout, "debian13", FULL="1")
    assert answer.returncode == 0, answer.stderr
    assert (checkout / "calls").read_text() == "debian13 test\n"


def test_a_system_that_is_not_known_is_refused(checkout: Path) -> None:
    answer = run(checkout, "debian11")
    assert answer.returncode == 2
    assert "debian11" in answer.stderr
    assert "ubuntu2404" in answer.stderr
    assert not (checkout / "calls").exists()
