"""The subcommands of `vantage images`: exit statuses, and what is said when the machine is in the way."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from typer.testing import CliRunner
from vantage_tools.errors import UserError
from vantage_tools.images import cli, registry
from vantage_tools.images.manifest import Reference
from vantage_tools.images.store import Store


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_a_cache_that_is_not_a_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.write_text("mine")
    monkeypatch.setenv("VANTAGE_CACHE", str(cache))
    with pytest.raises(UserError, match=str(cache)) as caught:
        run("get", "loki")
    assert "permissions" in caught.value.fix
    assert cache.read_text() == "mine"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    said = r"images/grafana\.tar\.gz\.partial: No space left on device\n"
    with pytest.raises(UserError, match=said), Store(tmp_path).lock():
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/images/grafana.tar.gz.partial")


def test_clean_keeps_the_images_unless_all_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path))
    for name in ("go/mod/x", "work/base.tar", "images/loki.tar.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    run("clean")
    assert not (tmp_path / "go").exists() and not (tmp_path / "work").exists()
    assert (tmp_path / "images/loki.tar.gz").exists()
    run("clean", "--all")
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "down", "status"),
    [([], [], 0), (["grafana"], [], 1), ([], ["docker.io"], 3), (["grafana"], ["loki"], 1), ([], ["loki"], 3)],
)
def test_check_tells_a_missing_tag_from_a_registry_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], down: list[str], status: int
) -> None:
    def digest_of(reference: Reference) -> str:
        if any(name in reference.path for name in missing):
            raise registry.TagNotFoundError(reference.path)
        if any(name in reference.path for name in down):
            raise registry.RegistryError("HTTP 500")
        return "sha256:1"

    monkeypatch.setattr(registry, "is_reachable", lambda host: host not in down)
    monkeypatch.setattr(registry, "digest_of", digest_of)
    result = CliRunner().invoke(cli.app, ["check"])
    assert result.exit_code == status
    # One line a tag, on the output that suits what was found.
    assert all("@sha256:1" in line for line in result.stdout.splitlines())
    names = {"prometheus", "loki", "promtail", "jaeger", "alertmanager", "node-exporter", "grafana", "python"}
    for name in names:
        assert f"/{name}:" in result.output
    for name in missing:
        assert f"/{name}:" in result.stderr and "tag not found" in result.stderr
