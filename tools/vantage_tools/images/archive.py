"""Writes and reads image archives without a container engine.

An archive holds both forms: `manifest.json`, which every Docker since 1.10 loads, and the OCI layout, which gives the
image its name in the containerd image store. The bytes depend on the content alone, so the ids are known before any
engine has loaded the image. Neither buildah nor skopeo writes both forms into one file.
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

from vantage_tools.errors import UserError

# 2025-01-01, fixed for reproducible bytes; not 0, because some programs take a file from 1970 for a missing one.
EPOCH = 1735689600
_CREATED = "2025-01-01T00:00:00Z"
# How compressed layers begin, and the suffix of their media type.
_COMPRESSED = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What reading a file raises that is not an image archive or not a complete one.
_READ_ERRORS = (LookupError, TypeError, AttributeError, ValueError, OSError, EOFError, tarfile.TarError, zlib.error,
                lzma.LZMAError)  # fmt: skip


@dataclass(frozen=True)
class Ids:
    """What an engine calls the loaded image: `id` in the classic store, `digest` in the containerd store."""

    id: str
    digest: str


class Layer:
    """A tar under construction, with reproducible members in the order in which they are added."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._directories = {"."}

    def _add(self, path: str, kind: bytes, mode: int, data: IO[bytes] | None = None, **attributes: Any) -> None:
        name = path.strip("/")
        self.directory(str(PurePosixPath(name).parent))
        info = tarfile.TarInfo(name + "/" * (kind == tarfile.DIRTYPE))
        info.type, info.mode, info.mtime = kind, mode, EPOCH
        for attribute, value in attributes.items():
            setattr(info, attribute, value)
        self._tar.addfile(info, data)

    def directory(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        """Add a directory, and its parents (root's, 0755), unless it is there."""
        name = path.strip("/") or "."
        if name not in self._directories:
            self._directories.add(name)
            self._add(name, tarfile.DIRTYPE, mode, uid=owner[0], gid=owner[1])

    def data(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, tarfile.REGTYPE, mode, io.BytesIO(content), size=len(content))

    def file(self, path: str, source: Path, mode: int = 0o644) -> None:
        with source.open("rb") as stream:
            self._add(path, tarfile.REGTYPE, mode, stream, size=source.stat().st_size)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, linkname=target)


@contextmanager
def new_layer(target: Path) -> Iterator[Layer]:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        yield Layer(tar)


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@contextmanager
def compress(target: Path) -> Iterator[gzip.GzipFile]:
    """Write gzip to `target`, complete or not at all, without name and time; level 1 saves a minute an image."""
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as compressed:
            yield compressed
        raw.flush()
        os.fsync(raw.fileno())
    partial.replace(target)


def write_image(target: Path, ref: str, layers: Sequence[Path], settings: Mapping[str, Any], architecture: str) -> Ids:
    """Write the archive `target` of an image tagged `ref` and return its ids.

    `layers` are plain tars, lowest first; `settings` are Docker's (User, Entrypoint, …), with ExposedPorts and Volumes
    as lists.
    """
    config = dict(settings)
    for key in {"ExposedPorts", "Volumes"} & set(config):
        config[key] = {value: {} for value in config[key]}
    env = list(config.get("Env", []))
    # Docker gives no PATH to a container whose image has none, and `docker exec` then finds no program.
    config["Env"] = env if any(item.startswith("PATH=") for item in env) else [_PATH, *env]
    digests = [sha256_of(layer) for layer in layers]
    text = _json({
        "architecture": architecture,
        "os": "linux",
        "created": _CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": _CREATED, "created_by": "vantage images"} for _ in layers],
    })  # fmt: skip
    return _write(target, ref, list(zip(digests, layers, strict=True)), text)


def _write(target: Path, ref: str, layers: Sequence[tuple[str, Path]], config: bytes) -> Ids:
    """Write the archive of an image with this `config`; `layers` are (SHA-256, file), lowest first."""
    kind = "application/vnd.oci.image"
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": _descriptor(f"{kind}.config.v1+json", config),
        "layers": [
            {"mediaType": f"{kind}.layer.v1.tar{_compression(layer)}", "digest": f"sha256:{digest}",
             "size": layer.stat().st_size}
            for digest, layer in layers
        ],
    })  # fmt: skip
    entry = _descriptor(f"{kind}.manifest.v1+json", manifest)
    # containerd reads the full name from the first annotation, other tools the tag from the second.
    entry["annotations"] = {
        "io.containerd.image.name": ref,
        "org.opencontainers.image.ref.name": ref.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "mediaType": f"{kind}.index.v1+json", "manifests": [entry]}
    config_path = f"blobs/sha256/{_sha256(config)}"
    classic = [{"Config": config_path, "RepoTags": [ref], "Layers": [f"blobs/sha256/{digest}" for digest, _ in layers]}]
    with compress(target) as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        archive = Layer(tar)
        for digest, layer in dict(layers).items():
            archive.file(f"blobs/sha256/{digest}", layer)
        archive.data(config_path, config)
        archive.data(f"blobs/sha256/{_sha256(manifest)}", manifest)
        archive.data("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        archive.data("index.json", _json(index))
        archive.data("manifest.json", _json(classic))
    return Ids(f"sha256:{_sha256(config)}", f"sha256:{_sha256(manifest)}")


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{_sha256(data)}", "size": len(data)}


def _compression(layer: Path) -> str:
    with layer.open("rb") as stream:
        begin = stream.read(4)
    return next((suffix for magic, suffix in _COMPRESSED.items() if begin.startswith(magic)), "")


def ids_in_archive(path: Path) -> tuple[list[str], Ids]:
    """Return the tags and ids of the image in an archive that `docker save` of any version wrote.

    For use within naming_damage(): a file that is not such an archive raises many things.
    """
    with tarfile.open(path, "r:*") as tar:
        entry = json.loads(_read(tar, "manifest.json"))[0]
        image_id = digest = f"sha256:{_sha256(_read(tar, entry['Config']))}"
        # Before Docker 25 an archive had no OCI index: add_index() adds one.
        with suppress(KeyError):
            digest = json.loads(_read(tar, "index.json"))["manifests"][0]["digest"]
        return list(entry.get("RepoTags") or []), Ids(image_id, digest)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    if stream := tar.extractfile(name):
        return stream.read()
    raise KeyError(name)


def add_index(path: Path, ref: str, ids: Ids) -> Ids:
    """Add an OCI index to the archive `path` where it has none; return the ids of its image, tagged `ref`.

    Without one, an engine with the containerd store makes up a manifest, and what it calls the image is not known.
    Layers, config and so the id stay. For use within naming_damage().
    """
    if ids.digest != ids.id:
        return ids
    # The suffix lets the next run remove what an interrupted one left.
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=".partial") as folder:
        files, links = _unpack(path, Path(folder))
        entry = json.loads(files["manifest.json"].read_bytes())[0]
        layers = [files[links.get(name, name)] for name in entry["Layers"]]
        return _write(path, ref, [(sha256_of(layer), layer) for layer in layers], files[entry["Config"]].read_bytes())


def _unpack(path: Path, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return where each file of a tar was written in `folder` and what its links point to, by name in the tar.

    In one pass, because seeking back in a gzipped tar starts over, and under names of our own.
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


@contextmanager
def naming_damage(problem: str, fix: str) -> Iterator[None]:
    """Raise UserError for what reading an archive raises; a full disk or missing rights keep their own reason."""
    try:
        yield
    except _READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{problem}: {error}", "Check free space and permissions there, then retry.") from error
        raise UserError(f"{problem}: damaged or not an image archive ({error})", fix) from error
