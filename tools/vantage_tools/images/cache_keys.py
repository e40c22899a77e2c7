"""Keys of the cache: a hash of everything an image is made of. Same key, same image, nothing to do."""

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
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def hash_of_files(files: Iterable[Path], relative_to: Path) -> list[list[str]]:
    """Return [name, SHA-256] of each file, sorted by name."""
    return [
        [str(path.relative_to(relative_to)), hashlib.sha256(path.read_bytes()).hexdigest()]
        for path in sorted(set(files))
    ]


def base_key(base: Base) -> str:
    """Return the key of a Debian base. Debian's newer packages do not change it: `clean` does."""
    # The key of the archive says who signed, not what is in it.
    return hash_of([FORMAT, base.suite, base.packages, *([base.components] if base.components else [])])


def pulled_key(image: Image) -> str:
    """Return the key of an image that comes from a registry."""
    return hash_of(["pull", image.pull])


def program_key(make: Mapping[str, Any], source: Path, architecture: str) -> str:
    """Return the key of an engine's programs: module versions, checksums, flags, architecture."""
    settings = {key: make.get(key) for key in ("module", "version", "tags", "cgo", "ldflags_x", "binaries")}
    return hash_of([settings, hash_of_files([source / "go.mod", source / "go.sum"], source), architecture])


def app_files(root: Path) -> list[Path]:
    """Return the files of app/ that its image is made of."""
    app = root / "app"
    found = [path for pattern in _APP_CONTENT for path in app.glob(pattern)]
    return sorted(
        path for path in set(found)
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    )  # fmt: skip


def made_key(image: Image, manifest: Manifest, architecture: str) -> str:
    """Return the key of an image that is made here."""
    make = image.make
    parts: list[Any] = [FORMAT, architecture, image.made_ref, make]
    if make.get("base"):
        parts.append(base_key(manifest.bases[make["base"]]))
    if make["kind"] == "go":
        parts.append(program_key(make, manifest.folder / image.name, architecture))
    if make["kind"] == "app":
        parts.append(hash_of_files(app_files(manifest.root), manifest.root))
    return hash_of(parts)
