"""Keys of the cache: a hash of everything an image is made of, so that the same key is the same image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .manifest import Base, Image, Manifest

# Raise it when the way images are written changes: every image is then made again.
FORMAT = 1

# What of app/ goes into its image. Tests and benchmarks do not, so changing them builds nothing.
_APP_CONTENT = (
    *("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "requirements*.txt", "src/**/*"),
    *("examples/shop/pyproject.toml", "examples/shop/README.md", "examples/shop/shop/**/*"),
)


def hash_of(value: Any) -> str:
    """Return a short hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:20]


def hash_of_files(files: Iterable[Path], relative_to: Path) -> list[list[str]]:
    """Return [name, SHA-256] of each file, sorted by name."""
    return [
        [str(path.relative_to(relative_to)), hashlib.sha256(path.read_bytes()).hexdigest()]
        for path in sorted(set(files))
    ]


def base_key(base: Base) -> str:
    """Return the key of a Debian base; newer packages do not change it, `vantage images clean` drops it."""
    return hash_of([FORMAT, base.suite, list(base.packages), *([list(base.components)] if base.components else [])])


def pulled_key(image: Image) -> str:
    """Return the key of an image that comes from a registry."""
    return hash_of(["pull", image.pull])


def program_key(make: Mapping[str, Any], source: Path, architecture: str) -> str:
    """Return the key of an engine's programs: module versions, checksums, flags, architecture."""
    settings = {key: make.get(key) for key in ("module", "version", "tags", "cgo", "ldflags_x", "binaries")}
    return hash_of([settings, hash_of_files([source / "go.mod", source / "go.sum"], source), architecture])


def app_files(root: Path) -> list[Path]:
    """Return the files of app/ that its image is made of."""
    found = {path for pattern in _APP_CONTENT for path in (root / "app").glob(pattern) if path.is_file()}
    return sorted(path for path in found if "__pycache__" not in path.parts and ".egg-info" not in str(path))


def made_key(image: Image, manifest: Manifest, architecture: str) -> str:
    """Return the key of an image that is made here."""
    parts: list[Any] = [FORMAT, architecture, image.made_ref, image.make]
    if image.make.get("base"):
        parts.append(base_key(manifest.bases[image.make["base"]]))
    if image.make["kind"] == "go":
        parts.append(program_key(image.make, manifest.folder / image.name, architecture))
    if image.make["kind"] == "app":
        parts.append(hash_of_files(app_files(manifest.root), manifest.root))
    return hash_of(parts)
