"""The programs that Promtail's and Grafana's roles install on a host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grafana_password
import promtail_rewind
import pytest

CURSOR = "s=0a1b;i=5;b=cd;m=7;t=5f5e100;x=9"


@pytest.fixture
def positions(tmp_path: Path) -> Path:
    path = tmp_path / "positions.yml"
    path.write_text(f'positions:\n  cursor-journal: "{CURSOR}"\n')
    path.chmod(0o600)
    return path


def test_the_cursor_moves_back_by_the_seconds(positions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promtail_rewind, "cursor_at", lambda microseconds: f"cursor at {microseconds}")
    promtail_rewind.main(positions, 15)
    assert positions.read_text() == 'positions:\n  cursor-journal: "cursor at 85000000"\n'
    assert positions.stat().st_mode & 0o777 == 0o600


def test_the_position_stays_where_the_journal_begins_later(positions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promtail_rewind, "cursor_at", lambda _: "")
    with pytest.raises(SystemExit):
        promtail_rewind.main(positions, 15)
    assert CURSOR in positions.read_text()


def test_a_first_start_has_no_position(tmp_path: Path) -> None:
    promtail_rewind.main(tmp_path / "missing.yml", 15)


def test_the_first_entry_of_the_journal_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journalctl").write_text("#!/bin/sh\nprintf '__CURSOR=s=1;t=2\\n\\n__CURSOR=s=3;t=4\\n'\n")
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert promtail_rewind.cursor_at(1) == "s=1;t=2"


@pytest.mark.parametrize(("answers", "resets"), [([True], 0), ([False, True], 1)])
def test_a_password_that_does_not_log_in_is_reset(
    answers: list[bool], resets: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("planted\n")
    calls: list[tuple[list[str], str]] = []

    def run(argv: list[str], *, input: str, **_: object) -> subprocess.CompletedProcess[str]:
        calls.append((argv, input))
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(grafana_password, "logs_in", lambda *_: answers.pop(0))
    monkeypatch.setattr(subprocess, "run", run)
    grafana_password.main("http://127.0.0.1:3000", str(tmp_path / "password"), "grafana")
    assert len(calls) == resets
    for argv, given in calls:
        assert argv[:4] == ["docker", "exec", "--interactive", "grafana"]
        assert "planted" not in " ".join(argv)
        assert given == "planted\n"


def test_a_password_that_cannot_be_reset_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("planted\n")
    monkeypatch.setattr(grafana_password, "logs_in", lambda *_: False)
    monkeypatch.setattr(subprocess, "run", lambda argv, **_: subprocess.CompletedProcess(argv, 1, "", "locked"))
    with pytest.raises(SystemExit, match="locked"):
        grafana_password.main("http://127.0.0.1:3000", str(tmp_path / "password"))
