"""How the toolbox runs other programs: their exit codes, Ctrl-C, and the user's terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vantage_tools import process
from vantage_tools.vm.container import SystemContainer

CLEANS_UP = """
import signal, sys, time
from pathlib import Path

def stop(*_):
    time.sleep(1)
    Path(sys.argv[1], "cleaned up").touch()
    sys.exit(3)

signal.signal(signal.SIGINT, stop)
Path(sys.argv[1], "running").touch()
time.sleep(60)
"""
RUNS_IT = "import sys; from vantage_tools import process; process.run(sys.executable, '-c', sys.argv[1], sys.argv[2])"


def test_a_failing_program_has_its_exit_code() -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        process.run(sys.executable, "-c", "raise SystemExit(7)")
    assert error.value.returncode == 7


def test_ctrl_c_lets_the_program_clean_up(tmp_path: Path) -> None:
    # A session of its own: the signal goes to the group, as a terminal sends it.
    command = [sys.executable, "-c", RUNS_IT, CLEANS_UP, str(tmp_path)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 30
        while not (tmp_path / "running").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=30) != 0
    assert (tmp_path / "cleaned up").exists()


def test_only_an_interactive_program_gets_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker refuses a terminal whose input is not one, and most commands are run for their output."""
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    machine = SystemContainer("vantage")
    assert machine.command("true") == ["docker", "exec", "vantage", "true"]
    assert "--tty" in machine.terminal_command("bash")
