"""Where each image comes from, with a stand-in for the docker command and for the registry's answer."""

from __future__ import annotations

import errno
import io
import json
import shutil
import tarfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from archives import write_tar
from rich.console import Console
from vantage_tools.errors import UserError
from vantage_tools.images import registry
from vantage_tools.images.archive import new_layer, write_image
from vantage_tools.images.getting import Getter, Missing
from vantage_tools.images.make import Maker
from vantage_tools.images.manifest import Image, Manifest, load
from vantage_tools.images.progress import Progress
from vantage_tools.images.store import Record, Store
from vantage_tools.vm import host_tools

IMAGES = """
    images:
      - name: loki
        variable: loki_image
        pull: docker.io/grafana/loki:2.0
        make:
          {kind: go, ref: docker.io/grafana/loki:1.9, module: m, version: v1, binaries: {m/cmd: /bin/loki}, config: {}}
      - name: grafana
        variable: grafana_image
        pull: docker.io/grafana/grafana:12.4.12
        optional: true
        enabled_variable: grafana_enabled
        archive_variable: VANTAGE_GRAFANA_ARCHIVE
    bases: {}
"""

# Behaves as docker does for the words that are used here; images in its registry and its engine are archives.
DOCKER = """\
#!/usr/bin/env python3
import gzip, pathlib, shutil, sys
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
    sys.stdout.buffer.write(gzip.decompress(local.read_bytes()))
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
        self.asked = 0
        self.answer = True
        self.output = io.StringIO()
        self.progress = Progress(2, Console(file=self.output, markup=False, soft_wrap=True))
        monkeypatch.setattr(registry, "is_reachable", self._answers)
        monkeypatch.setattr(Maker, "make", self._make)
        monkeypatch.delenv("VANTAGE_GRAFANA_ARCHIVE", raising=False)
        self.made: list[str] = []

    def _answers(self, host: str) -> bool:
        self.asked += 1
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

    def getter(self, source: str = "auto") -> Getter:
        return Getter(self.manifest, self.store, self.progress, source)

    def get(self, name: str, source: str = "auto") -> Record | Missing:
        return self.getter(source).get(self.manifest.select([name])[0])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def record(result: Record | Missing) -> Record:
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


def test_the_registry_is_asked_once_a_run(world: World) -> None:
    world.answer = False
    getter = world.getter()
    for image in world.manifest.images:
        getter.get(image)
    assert world.asked == 1


def test_a_second_run_asks_and_does_nothing(world: World) -> None:
    world.answer = False
    first = world.get("loki")
    asked, said = world.asked, world.output.getvalue()
    assert world.get("loki") == first
    assert (world.asked, world.output.getvalue(), world.made) == (asked, said, ["loki"])


def test_source_make_never_asks_a_registry(world: World) -> None:
    world.archive(world.path / "registry" / "loki_2.0", "docker.io/grafana/loki:2.0")
    assert record(world.get("loki", "make")).origin == "made"
    assert world.asked == 0


def test_source_pull_never_makes(world: World) -> None:
    world.answer = False
    with pytest.raises(UserError, match=r"docker\.io does not answer"):
        world.get("loki", "pull")
    assert world.made == []


def test_grafana_is_missing_in_one_line_where_it_cannot_be_had(world: World) -> None:
    world.answer = False
    assert world.get("grafana") == Missing("grafana", "docker.io does not answer")


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
    assert world.asked == 0
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


def test_the_id_is_the_classic_one_though_this_engine_shows_the_other(world: World) -> None:
    ids = world.archive(world.path / "registry" / "loki_2.0", "docker.io/grafana/loki:2.0")
    (world.path / "id").write_text(ids.digest)  # type: ignore[attr-defined]
    got = record(world.get("loki"))
    assert (got.id, got.digest) == (ids.id, ids.digest)  # type: ignore[attr-defined]


def test_a_record_of_an_archive_without_an_index_is_not_current(world: World) -> None:
    world.archive(world.path / "registry" / "loki_2.0", "docker.io/grafana/loki:2.0")
    first = record(world.get("loki"))
    world.store.add(replace(first, digest=first.id))
    (image,) = world.manifest.select(["loki"])
    assert world.getter().current(image) is None
    assert record(world.get("loki")) == first


def without_its_end(archive: bytes) -> bytes:
    return archive[: len(archive) // 2]


def with_a_wrong_byte(archive: bytes) -> bytes:
    # Behind gzip's header, which ends with the file's name: a kind of block that there is not.
    begin = archive.index(0, 10) + 1
    return archive[:begin] + b"\xff" + archive[begin + 1 :]


def lacking_its_files(_: bytes) -> bytes:
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w:gz").close()
    return empty.getvalue()


@pytest.mark.parametrize("damage", [without_its_end, with_a_wrong_byte, lacking_its_files])
def test_a_damaged_given_archive_is_named_and_replaces_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    given = world.path / "given.tar.gz"
    world.archive(given, "grafana/grafana:12.4.12")
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))
    world.get("grafana")
    before = world.store.archive("grafana").read_bytes()
    given.write_bytes(damage(given.read_bytes()))
    with pytest.raises(UserError, match=r"(?s)given\.tar\.gz: damaged .+\(.+\)\n.*docker save"):
        world.get("grafana")
    assert world.store.archive("grafana").read_bytes() == before


def test_an_archive_for_which_there_is_no_room_is_not_called_damaged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = world.path / "given.tar.gz"
    world.archive(given, "grafana/grafana:12.4.12")
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"given\.tar\.gz: .*No space left on device\n.*free space") as caught:
        world.get("grafana")
    assert "damaged" not in str(caught.value)


def test_an_engine_that_saves_half_an_image_is_named_and_nothing_is_left(world: World) -> None:
    damaged = world.path / "registry" / "loki_2.0"
    write_tar(damaged.with_suffix(".gz"), {"manifest.json": b"[]"}).replace(damaged)
    with pytest.raises(UserError, match=r"docker save of docker\.io/grafana/loki:2\.0: damaged .+\(.+\)\n.*image rm"):
        world.get("loki")
    assert world.store.record("loki") is None
    assert not world.store.archive("loki").exists()


def test_a_given_archive_that_lacks_a_layer_replaces_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given = world.path / "given.tar.gz"
    world.archive(given, "grafana/grafana:12.4.12")
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))
    world.get("grafana")
    before = world.store.archive("grafana").read_bytes()
    manifest = json.dumps([{"Config": "c", "RepoTags": ["grafana/grafana:12.4.12"], "Layers": ["gone"]}]).encode()
    write_tar(given, {"c": b"{}", "manifest.json": manifest})
    with pytest.raises(UserError, match=r"given\.tar\.gz: damaged .+\('gone'\)"):
        world.get("grafana")
    assert world.store.archive("grafana").read_bytes() == before


def test_an_archive_of_something_else_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given = world.path / "given.tar.gz"
    world.archive(given, "docker.io/grafana/loki:2.0")
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))
    with pytest.raises(UserError, match=r"holds docker.io/grafana/loki:2.0, not grafana/grafana\n.*docker save"):
        world.get("grafana")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8bbroken"])
def test_a_broken_archive_is_refused(world: World, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    given = world.path / "given.tar.gz"
    given.write_bytes(content)
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", str(given))
    with pytest.raises(UserError, match="not an image archive"):
        world.get("grafana")


def test_an_absent_archive_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VANTAGE_GRAFANA_ARCHIVE", "/nowhere/grafana.tar.gz")
    with pytest.raises(UserError, match=r"/nowhere/grafana\.tar\.gz: no such file"):
        world.get("grafana")


def test_no_engine_is_a_clear_error(world: World) -> None:
    world.docker.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match=r"no Docker engine answers"):
        world.get("loki", "pull")


@pytest.mark.parametrize("missing", [[], ["mmdebstrap"]])
def test_missing_packages_for_making_images_are_installed(missing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with only Python and git makes images too."""
    installed: list[str] = []
    monkeypatch.setattr(host_tools, "missing_packages", lambda *groups: missing)
    monkeypatch.setattr(host_tools, "install", lambda *groups: installed.extend(groups))
    monkeypatch.setattr(Maker, "_debian", lambda self, image: None)
    Maker(None, None, Progress(0)).make(Image("system", make={"kind": "debian"}))  # type: ignore[arg-type]
    assert installed == (["images"] if missing else [])
