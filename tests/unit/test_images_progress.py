"""Progress, on a terminal and in a log."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console
from vantage_tools.images import progress
from vantage_tools.images.progress import Progress


def test_a_log_gets_a_line_a_step() -> None:
    output = io.StringIO()
    shown = Progress(2, Console(file=output, markup=False, soft_wrap=True))
    shown.begin("loki")
    with shown.step("compiling [loki]"):
        pass
    shown.done("made")
    assert output.getvalue().splitlines() == ["[1/2] loki: compiling [loki]", "[1/2] loki: made (0 s)"]


def test_a_log_gets_reminders_of_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REMINDER_SECONDS", 0.01)
    output = io.StringIO()
    shown = Progress(1, Console(file=output, markup=False, soft_wrap=True))
    shown.begin("loki")
    with shown.step("compiling"):
        deadline = time.monotonic() + 10
        while output.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = output.getvalue().splitlines()
    assert len(lines) >= 3
    assert set(lines) == {"[1/1] loki: compiling", "[1/1] loki: compiling (0 s)"}


def test_a_terminal_gets_one_live_line_that_goes_when_the_step_ends() -> None:
    output = io.StringIO()
    shown = Progress(1, Console(file=output, force_terminal=True, markup=False, width=60))
    shown.begin("loki")
    with shown.step("compiling [loki]"):
        pass
    assert "[1/1] loki: compiling [loki] " in output.getvalue()
    # Erased: rich moves up and clears the line.
    assert output.getvalue().rstrip().endswith("\x1b[2K")
