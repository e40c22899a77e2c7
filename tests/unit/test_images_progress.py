"""Progress, on a terminal and in a log."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console
from vantage_tools.images import progress
from vantage_tools.images.progress import Progress


def test_a_log_gets_a_line_a_step_and_reminders_with_the_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REMINDER_SECONDS", 0.01)
    output = io.StringIO()
    shown = Progress(2, Console(file=output, markup=False, soft_wrap=True))
    shown.begin("loki")
    with shown.step("compiling [loki]") as step:
        step.detail = "3 of 7"
        deadline = time.monotonic() + 10
        while "3 of 7" not in output.getvalue():
            assert time.monotonic() < deadline
    shown.done("made")
    lines = output.getvalue().splitlines()
    assert lines[0] == "[1/2] loki: compiling [loki]"
    assert lines[1] == "[1/2] loki: compiling [loki] – 3 of 7"
    assert lines[-1] == "[1/2] loki: made (0 s)"


def test_a_terminal_gets_one_live_line_that_goes_when_the_step_ends() -> None:
    output = io.StringIO()
    shown = Progress(1, Console(file=output, force_terminal=True, markup=False, width=30))
    shown.begin("loki")
    with shown.step("compiling something with a long name"):
        pass
    assert "[1/1] loki: compiling somethi…\n" in output.getvalue()
    # Erased: rich moves up and clears the line.
    assert output.getvalue().rstrip().endswith("\x1b[2K")
