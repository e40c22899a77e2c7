"""What the command line says when the machine itself is in the way."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from vantage_images import cli


def test_a_cache_that_is_no_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    cache.write_text("mine")
    monkeypatch.setenv("VANTAGE_CACHE", str(cache))
    assert cli.main(["get", "loki"]) == 1
    said = capsys.readouterr().err
    assert str(cache) in said
    assert "Fix: make that file or folder usable" in said
    assert cache.read_text() == "mine"


def test_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/images/grafana.tar.gz.partial")

    monkeypatch.setattr(cli, "_get", full)
    assert cli.main(["get"]) == 1
    assert "/cache/images/grafana.tar.gz.partial: No space left on device\n  Fix:" in capsys.readouterr().err
