"""Writes image archives without a container engine.

An archive holds both forms: `manifest.json`, which every Docker since 1.10 loads, and the OCI layout, which gives the
image its name in the containerd image store. The bytes depend on the content alone, so the ids are known before any
engine has loaded the image. Neither buildah nor skopeo writes both forms into one file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

# 2025-01-01, fixed for reproducible bytes; not 0, because some programs take a file from 1970 for a missing one.
EPOCH = 1735689600
_CREATED = "2025-01-01T00:00:00Z"
# How compressed layers begin, and the suffix of their media type.
_COMPRESSED = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
_MEDIA_TYPE = "application/vnd.oci.image"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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

    def directory(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Add a directory, and its parents (root's, 0755), unless it is there."""
        name = path.strip("/") or "."
        if name not in self._directories:
            self._directories.add(name)
            self._add(name, tarfile.DIRTYPE, mode, uid=uid, gid=gid)

    def data(self, path: str, content: bytes) -> None:
        self._add(path, tarfile.REGTYPE, 0o644, io.BytesIO(content), size=len(content))

    def file(self, path: str, source: Path, mode: int = 0o644) -> None:
        with source.open("rb") as stream:
            self._add(path, tarfile.REGTYPE, mode, stream, size=source.stat().st_size)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, linkname=target)


@contextmanager
def new_layer(target: Path) -> Iterator[Layer]:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        yield Layer(tar)


def write_image(target: Path, ref: str, layers: Sequence[Path], settings: Mapping[str, Any], architecture: str) -> Ids:
    """Write the archive `target` of an image tagged `ref` and return its ids.

    `layers` are plain tars, lowest first; `settings` are Docker's (User, Entrypoint, …), with ExposedPorts and Volumes
    as lists.
    """
    config = dict(settings)
    for key in {"ExposedPorts", "Volumes"} & set(config):
        config[key] = {value: {} for value in config[key]}
    # Docker gives no PATH to a container whose image has none, and `docker exec` then finds no program.
    config["Env"] = [_PATH, *config.get("Env", [])]
    text = _json({
        "architecture": architecture,
        "os": "linux",
        "created": _CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256_of(layer)}" for layer in layers]},
        "history": [{"created": _CREATED, "created_by": "vantage images"} for _ in layers],
    })  # fmt: skip
    return write_archive(target, ref, layers, text)


def write_archive(target: Path, ref: str, layers: Sequence[Path], config: bytes) -> Ids:
    """Write the archive of an image with this `config`, complete or not at all; `layers` are lowest first."""
    digests = [f"sha256:{sha256_of(layer)}" for layer in layers]
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA_TYPE}.manifest.v1+json",
        "config": _descriptor(f"{_MEDIA_TYPE}.config.v1+json", config),
        "layers": [
            {"mediaType": f"{_MEDIA_TYPE}.layer.v1.tar{_compression(layer)}", "digest": digest,
             "size": layer.stat().st_size}
            for digest, layer in zip(digests, layers, strict=True)
        ],
    })  # fmt: skip
    entry = _descriptor(f"{_MEDIA_TYPE}.manifest.v1+json", manifest)
    # containerd reads the full name from the first annotation, other tools the tag from the second.
    entry["annotations"] = {
        "io.containerd.image.name": ref,
        "org.opencontainers.image.ref.name": ref.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "mediaType": f"{_MEDIA_TYPE}.index.v1+json", "manifests": [entry]}
    ids = Ids(_digest(config), _digest(manifest))
    classic = [{"Config": _blob(ids.id), "RepoTags": [ref], "Layers": [_blob(digest) for digest in digests]}]
    partial = target.with_name(target.name + ".partial")
    # Level 1 saves a minute an image. Name and time would change the bytes.
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        archive = Layer(tar)
        for digest, layer in dict(zip(digests, layers, strict=True)).items():
            archive.file(_blob(digest), layer)
        archive.data(_blob(ids.id), config)
        archive.data(_blob(ids.digest), manifest)
        archive.data("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        archive.data("index.json", _json(index))
        archive.data("manifest.json", _json(classic))
    partial.replace(target)
    return ids


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _compression(layer: Path) -> str:
    with layer.open("rb") as stream:
        begin = stream.read(4)
    return next((suffix for magic, suffix in _COMPRESSED.items() if begin.startswith(magic)), "")
