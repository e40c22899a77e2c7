"""One digest for a folder of source, so that an unchanged app is not built again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

# Made by tools beside the source; they do not change what is built.
IGNORED = {
    ".git",
    ".venv",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
    "build",
    "dist",
}


def source_digest(folder: str) -> str:
    """SHA-256 in hex over the names and contents of all files of the folder.

    Raises FileNotFoundError where the folder is none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"the app's source {folder} is no folder; give the folder that holds its Dockerfile")
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not any(part in IGNORED or part.endswith(".egg-info") for part in relative.parts):
            total.update(f"{relative}\0{path.stat().st_size}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"source_digest": source_digest}
