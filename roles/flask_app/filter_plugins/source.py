"""The files of a folder of source and one digest over them, so that an unchanged app is not built again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

# What an image is not made of: history, tools' leavings, and secrets of the machine it was written on.
# Not `build` and `dist`: a Dockerfile may well copy what another tool put there.
IGNORED = {
    ".env",
    ".git",
    ".venv",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
}


def source_files(folder: str) -> list[str]:
    """The files that the builder gets and the digest is made of, sorted, relative to the folder.

    Raises FileNotFoundError where the folder is none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"the app's source {folder} is no folder; give the folder that holds its Dockerfile")
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(
        str(path) for path in found if not any(part in IGNORED or part.endswith(".egg-info") for part in path.parts)
    )


def source_digest(folder: str) -> str:
    """SHA-256 in hex over the names and contents of `source_files`."""
    total = hashlib.sha256()
    for name in source_files(folder):
        path = Path(folder, name)
        total.update(f"{name}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def built_tag(image: str, digest: str) -> str:
    """The tag of what is built of a source with this digest: `shop:1` becomes `shop:1-0123456789ab`."""
    separator = "-" if ":" in image.rpartition("/")[2] else ":"
    return f"{image}{separator}{digest[:12]}"


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"built_tag": built_tag, "source_digest": source_digest, "source_files": source_files}
