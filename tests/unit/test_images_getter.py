"""Where each image comes from, with a stand-in for the docker command and for the registry's answer."""

from __future__ import annotations

import io
import json
import tarfile
import textwrap
from pathlib import Path

import pytest
from archives import write_tar
from rich.console import Console
from vantage_tools.errors import UserError
from vantage_tools.images import registry
from vantage_tools.images.archive import new_layer, write_image
from vantage_tools.images.getter import Getter
from vantage_tools.images.maker import Maker
from vantage_tools.images.manifest import Image, Manifest, load
from vantage_tools.images.progress import Progress
from vantage_tools.images.store import Record, Store
from vantage_tools.vm import host_tools

IMAGES = """
    images:
      - name: loki
        pull: docker.io/grafana/loki:2.0
        make:
          {kind: go, ref: docker.io/grafana/loki:1.9, module: m, version: v1, binaries: {m/cmd: /bin/loki}, config: {}}
      - name: grafana
        pull: docker.io/grafana/grafana:12.4.12
    bases: {}
"""

# Behaves as docker does for the words that are used here; images in its registry and its engine are archives.
DOCKER = """\
#!/usr/bin/env python3
import gzip, json, pathlib, shutil, sys, tarfile
state = pathlib.Path(__file__).parent
with (state / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
name = words[-1].rpartition("/")[2].replace(":", "_")
local, remote = state / "engine" / name, state / "registry" / name
if words[0] == "pull":
    if not remote.exists():
        sys.exit(f"Error response from daemon: manifest for {words[-1]} not found")
    shutil.copy(remote, local)
elif words[0] == "save":
    if not local.exists():
        sys.exit("no such image")
    pathlib.Path(words[words.index("--output") + 1]).write_bytes(gzip.decompress(local.read_bytes()))
elif words[0] == "load":
    with tarfile.open(words[-1]) as tar:
        (entry,) = json.load(tar.extractfile("manifest.json"))
    for tag in entry["RepoTags"]:
        shutil.copy(words[-1], state / "engine" / tag.rpartition("/")[2].replace(":", "_"))
        print("Loaded image:", tag.removeprefix("docker.io/"))
elif words[:2] == ["image", "inspect"]:
    if not local.exists():
        sys.exit("no such image")
    print((state / "id").read_text())
"""


class World:
    """A checkout, a store, and a docker whose registry and engine hold what a test puts there."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        folder = path / "tools/images"
        (folder / "loki").mkdir(parents=True)
        (folder / "images.yml").write_text(textwrap.dedent(IMAGES))
        (folder / "loki" / "go.mod").write_text("module x\n")
        (folder / "loki" / "go.sum").write_text("\n")
        (path / "app").mkdir()
        (path / "app/pyproject.toml").write_text('[project]\nversion = "1"\n')
        self.docker = path / "docker"
        for folder in ("engine", "registry"):
            (path / folder).mkdir()
        self.docker.write_text(DOCKER)
        self.docker.chmod(0o755)
        monkeypatch.setenv("PATH", str(path), prepend=":")
        self.manifest: Manifest = load(path)
        self.store = Store(path / "cache")
        for made in (self.store.folder, self.store.work):
            made.mkdir(parents=True)
        self.answer = True
        self.output = io.StringIO()
        self.progress = Progress(2, Console(file=self.output, markup=False, soft_wrap=True))
        monkeypatch.setattr(registry, "is_reachable", self._answers)
        monkeypatch.setattr(Maker, "make", self._make)
        monkeypatch.delenv("VANTAGE_GRAFANA_ARCHIVE", raising=False)
        self.made: list[str] = []

    def _answers(self, host: str) -> bool:
        return self.answer

    def _make(self, image: Image) -> object:
        self.made.append(image.name)
        return self.archive(self.store.archive(image.name), image.made_ref or "")

    def archive(self, target: Path, ref: str) -> object:
        layer = self.path / "layer.tar"
        with new_layer(layer) as content:
            content.data("/x", b"x")
        ids = write_image(target, ref, [layer], {}, "amd64")
        (self.path / "id").write_text(ids.id)
        return ids

    def getter(self) -> Getter:
        return Getter(self.manifest, self.store, self.progress)

    def get(self, name: str) -> Record | None:
        return self.getter().get(self.manifest.select([name])[0])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def record(result: Record | None) -> Record:
    assert isinstance(result, Record)
    return result


def test_an_image_is_pulled_where_a_registry_answers(world: World) -> None:
    ids = world.archive(world.path / "registry" / "loki_2.0", "docker.io/grafana/loki:2.0")
    got = record(world.get("loki"))
    assert (got.origin, got.ref, got.file) == ("pulled", "docker.io/grafana/loki:2.0", "loki.tar.gz")
    assert (got.id, got.digest) == (ids.id, ids.digest)  # type: ignore[attr-defined]
    with tarfile.open(world.store.archive("loki")) as tar:
        stream = tar.extractfile("manifest.json")
        assert stream is not None
        assert json.load(stream)[0]["RepoTags"] == ["docker.io/grafana/loki:2.0"]
    assert world.made == []


def test_an_image_is_made_where_no_registry_answers(world: World) -> None:
    world.answer = False
    got = record(world.get("loki"))
    assert (got.origin, got.ref) == ("made", "docker.io/grafana/loki:1.9")


def test_a_tag_that_the_registry_lacks_is_made_and_named(world: World) -> None:
    got = record(world.get("loki"))
    assert got.origin == "made"
    assert "manifest for docker.io/grafana/loki:2.0 not found" in world.output.getvalue()


def test_a_second_run_does_nothing(world: World) -> None:
    world.answer = False
    first = world.get("loki")
    said = world.output.getvalue()
    assert world.get("loki") == first
    assert (world.output.getvalue(), world.made) == (said, ["loki"])


def test_missing_grafana_is_reported_in_one_line(world: World) -> None:
    world.answer = False
    assert world.get("grafana") is None
    assert "VANTAGE_GRAFANA_ARCHIVE" in world.output.getvalue()


def test_grafana_is_taken_from_the_local_engine(world: World) -> None:
    world.answer = False
    world.archive(world.path / "engine" / "grafana_12.4.12", "docker.io/grafana/grafana:12.4.12")
    assert record(world.get("grafana")).origin == "engine"


@pytest.mark.parametrize("tag", ["12.4.12", "12.4.13"])
def test_grafana_is_taken_from_an_archive(world: World, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    given = world.path / "given.tar.gz"
    world.archive(given, f"grafana/grafana:{tag}")
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))
    got = record(world.get("grafana"))
    assert (got.origin, got.ref) == ("archive", f"docker.io/grafana/grafana:{tag}")
    # It stays, once taken, without the variable.
    monkeypatch.delenv("VANTAGE_GRAFANA_ARCHIVE")
    assert world.get("grafana") == got


def without_index(archive: Path) -> Path:
    """Leave the index out of `archive`, as `docker save` before Docker 25 had none."""
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    for name in ("index.json", "oci-layout"):
        del files[name]
    # The stand-in for docker keeps gzipped archives under names without a suffix.
    write_tar(archive.with_suffix(".gz"), files).replace(archive)
    return archive


def index_of(world: World, name: str) -> str:
    with tarfile.open(world.store.archive(name)) as tar:
        stream = tar.extractfile("index.json")
        assert stream is not None
        return str(json.load(stream)["manifests"][0]["digest"])


def test_what_an_old_engine_saves_gets_an_index(world: World) -> None:
    ids = world.archive(world.path / "registry" / "loki_2.0", "docker.io/grafana/loki:2.0")
    without_index(world.path / "registry" / "loki_2.0")
    got = record(world.get("loki"))
    assert got.id == ids.id  # type: ignore[attr-defined]
    assert got.digest != got.id
    assert got.digest == index_of(world, "loki")


def test_archive_of_another_image_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given = world.path / "given.tar.gz"
    world.archive(given, "docker.io/grafana/loki:2.0")
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))
    with pytest.raises(UserError, match=r"holds docker.io/grafana/loki:2.0, not grafana/grafana\n.*docker save"):
        world.get("grafana")


def test_a_broken_archive_is_refused_and_replaces_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given = world.path / "given.tar.gz"
    world.archive(given, "grafana/grafana:12.4.12")
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))
    world.get("grafana")
    before = world.store.archive("grafana").read_bytes()
    given.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"docker load of .*given\.tar\.gz"):
        world.get("grafana")
    assert world.store.archive("grafana").read_bytes() == before


def test_an_absent_archive_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", "/nowhere/grafana.tar.gz")
    with pytest.raises(UserError, match=r"VANTAGE_GRAFANA_ARCHIVE=/nowhere/grafana\.tar\.gz: no such file"):
        world.get("grafana")


def test_no_engine_is_a_clear_error(world: World) -> None:
    world.docker.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match=r"no Docker engine answers"):
        world.get("loki")


@pytest.mark.parametrize("missing", [[], ["mmdebstrap"]])
def test_missing_packages_for_making_images_are_installed(
    world: World, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with only Python and git makes images too."""
    installed: list[str] = []
    monkeypatch.setattr(host_tools, "missing_packages", lambda *groups: missing)
    monkeypatch.setattr(host_tools, "install", lambda *groups: installed.extend(groups))
    Maker(world.manifest, world.store, Progress(0))._cached("base-", "1")
    assert installed == (["images"] if missing else [])
