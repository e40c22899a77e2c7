"""Write container images without a container engine.

An archive is written in both shapes at once: the `manifest.json` that every Docker since 1.10 loads, and the
OCI layout that engines with the containerd image store prefer. The bytes depend on nothing but the content, so the
image id is known before any engine has seen it, and two machines make the same one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from .errors import ImageError

# 2025-01-01: a fixed moment, so that the bytes do not depend on when they were written. Not zero, because some
# programs take a file from 1970 for a missing one.
EPOCH = 1735689600
_CREATED = "2025-01-01T00:00:00Z"
# How packed layers begin, and what their media type says of it.
_PACKED = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
# What reading an archive raises that is none, is cut off, lacks a part or says something unexpected.
_DAMAGE = (LookupError, TypeError, AttributeError, ValueError, OSError, EOFError, tarfile.TarError, zlib.error,
           lzma.LZMAError)  # fmt: skip


@dataclass(frozen=True)
class Ids:
    """What an engine calls the loaded image: `id` in the classic store, `digest` in the containerd store."""

    id: str
    digest: str


class Layer:
    """A layer under construction: a plain tar with sorted-as-added, reproducible members."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._seen: set[str] = set()

    def _add(self, info: tarfile.TarInfo, data: IO[bytes] | None = None) -> None:
        info.mtime = EPOCH
        info.uname = info.gname = ""
        self._tar.addfile(info, data)

    def directory(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Add a directory, and its parents (root's, 0755) where they are not there yet."""
        name = path.strip("/")
        if not name or name in self._seen:
            return
        parent = str(PurePosixPath(name).parent)
        if parent != ".":
            self.directory(parent)
        self._seen.add(name)
        info = tarfile.TarInfo(name + "/")
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, uid, gid
        self._add(info)

    def data(self, path: str, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Add a file with `content`."""
        self._file(path, io.BytesIO(content), len(content), mode, (uid, gid))

    def file(self, path: str, source: Path, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Add a copy of the file `source`."""
        with source.open("rb") as stream:
            self._file(path, stream, source.stat().st_size, mode, (uid, gid))

    def _file(self, path: str, stream: IO[bytes], size: int, mode: int, owner: tuple[int, int]) -> None:
        name = path.strip("/")
        self.directory(str(PurePosixPath("/", name).parent))
        info = tarfile.TarInfo(name)
        info.size, info.mode, (info.uid, info.gid) = size, mode, owner
        self._add(info, stream)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link to `target`."""
        name = path.strip("/")
        self.directory(str(PurePosixPath("/", name).parent))
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
        self._add(info)


@contextmanager
def new_layer(target: Path) -> Iterator[Layer]:
    """Open a layer that is written to the plain tar `target`."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        yield Layer(tar)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def image_config(settings: Mapping[str, Any], diff_ids: Sequence[str], architecture: str) -> bytes:
    """Return the image's config as JSON; its SHA-256 is the image id.

    `settings` are Docker's names (User, Entrypoint, …); ExposedPorts and Volumes may be plain lists.
    """
    config: dict[str, Any] = {}
    for key, value in settings.items():
        listed = key in ("ExposedPorts", "Volumes") and not isinstance(value, Mapping)
        config[key] = {item: {} for item in value} if listed else value
    # Docker gives no PATH to a container whose image names none, and then `docker exec` finds nothing.
    env = list(config.get("Env") or [])
    if not any(item.startswith("PATH=") for item in env):
        env.insert(0, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    config["Env"] = env
    return _json({
        "architecture": architecture,
        "os": "linux",
        "created": _CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{item}" for item in diff_ids]},
        "history": [{"created": _CREATED, "created_by": "vantage images"} for _ in diff_ids],
    })  # fmt: skip


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
    }


def write_image(target: Path, ref: str, layers: Sequence[Path], settings: Mapping[str, Any], architecture: str) -> Ids:
    """Write the gzipped archive `target` of an image tagged `ref`, and return its ids.

    `layers` are plain tars, lowest first. The file appears complete or not at all.
    """
    diff_ids = [sha256_of(layer) for layer in layers]
    config = image_config(settings, diff_ids, architecture)
    return _write(target, ref, list(zip(diff_ids, layers, strict=True)), config)


def _write(target: Path, ref: str, layers: Sequence[tuple[str, Path]], config: bytes) -> Ids:
    """Write the archive of an image with this `config`; `layers` are the SHA-256 and the file of each, lowest first."""
    config_hex = hashlib.sha256(config).hexdigest()
    oci_manifest = _json({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [
            {"mediaType": _layer_type(layer), "digest": f"sha256:{digest}", "size": layer.stat().st_size}
            for digest, layer in layers
        ],
    })  # fmt: skip
    manifest_hex = hashlib.sha256(oci_manifest).hexdigest()
    index_entry = _descriptor("application/vnd.oci.image.manifest.v1+json", oci_manifest)
    # containerd reads the full name from the first annotation, other tools the tag from the second.
    index_entry["annotations"] = {
        "io.containerd.image.name": ref,
        "org.opencontainers.image.ref.name": ref.rpartition(":")[2],
    }
    docker_manifest = [{
        "Config": f"blobs/sha256/{config_hex}",
        "RepoTags": [ref],
        "Layers": [f"blobs/sha256/{digest}" for digest, _ in layers],
    }]  # fmt: skip
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as raw:
        # No name and no time in the gzip header, for the same bytes everywhere; level 1, because archives are
        # copied over fast links more often than slow ones and the higher levels cost a minute each.
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            layer_writer = Layer(tar)
            for digest, layer in dict(layers).items():
                layer_writer.file(f"blobs/sha256/{digest}", layer)
            layer_writer.data(f"blobs/sha256/{config_hex}", config)
            layer_writer.data(f"blobs/sha256/{manifest_hex}", oci_manifest)
            layer_writer.data("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            layer_writer.data("index.json", _json({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [index_entry],
            }))  # fmt: skip
            layer_writer.data("manifest.json", _json(docker_manifest))
        raw.flush()
        os.fsync(raw.fileno())
    partial.replace(target)
    return Ids(f"sha256:{config_hex}", f"sha256:{manifest_hex}")


def _layer_type(layer: Path) -> str:
    with layer.open("rb") as stream:
        begin = stream.read(4)
    packed = next((suffix for magic, suffix in _PACKED.items() if begin.startswith(magic)), "")
    return f"application/vnd.oci.image.layer.v1.tar{packed}"


@contextmanager
def damage_named(thing: str, reason: str, fix: str) -> Iterator[None]:
    """Raise ImageError in place of what ids_in_archive() and give_index() raise over an archive.

    `thing` is the archive as a person knows it, `reason` and `fix` are said where its content is to blame; a full disk or
    missing rights are said as what they are.
    """
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(thing, f"cannot be read or written anew: {error}",
                             "see to the room and the rights there, then run it again") from error  # fmt: skip
        raise ImageError(thing, f"{reason} ({error})", fix) from error


def ids_in_archive(path: Path) -> tuple[list[str], Ids]:
    """Return the tags and ids of the image in an archive that `docker save` (of any age) wrote.

    For use within damage_named(): it raises many things when it is no such archive.
    """
    with tarfile.open(path, "r:*") as tar:
        manifest = json.loads(_member(tar, "manifest.json"))
        entry = manifest[0]
        config = _member(tar, entry["Config"])
        image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
        digest = image_id
        # Before Docker 25 an archive had no OCI index: give_index() adds one.
        with suppress(KeyError):
            digest = json.loads(_member(tar, "index.json"))["manifests"][0]["digest"]
        return list(entry.get("RepoTags") or []), Ids(image_id, digest)


def give_index(path: Path, ref: str, ids: Ids) -> Ids:
    """Write the archive `path` anew with an OCI index where it has none, and return the ids of its image, tagged `ref`.

    For an archive without one, an engine with the containerd store makes up a manifest of its own, and nobody can say
    beforehand what it will call the image. Layers and config, and so the id, stay as they are.
    For use within damage_named(): it raises many things when something is missing in the archive.
    """
    if ids.digest != ids.id:
        return ids
    # Named as what an interrupted run leaves behind, which the next one removes.
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=".partial") as folder:
        files, links = _unpack(path, Path(folder))
        entry = json.loads(files["manifest.json"].read_bytes())[0]
        layers = [files[links.get(name, name)] for name in entry["Layers"]]
        named = [(sha256_of(layer), layer) for layer in layers]
        return _write(path, ref, named, files[entry["Config"]].read_bytes())


def _unpack(path: Path, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return where each file of a tar lies in `folder`, and what its links point to, by their names in the tar.

    One pass, since going back in a gzipped tar means to begin anew; and under names of our own.
    """
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if member.issym():
                links[member.name] = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
            elif stream := tar.extractfile(member):
                files[member.name] = folder / str(len(files))
                with files[member.name].open("wb") as output:
                    shutil.copyfileobj(stream, output, 1 << 20)
    return files, links


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return stream.read()
