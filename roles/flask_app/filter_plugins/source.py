"""The files of a folder of source and one digest over them, so that an unchanged app is not built again."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

# What an image is not made of: history, tools' leavings, and secrets of the machine it was written on.
# Flask's instance folder beside the app is such a secret too.
# Not `build` and `dist`: a Dockerfile may well copy what another tool put there.
IGNORED = {
    ".git",
    ".venv",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
    "node_modules",
}

# What a source without a Dockerfile is built with.
ROLE = Path(__file__).resolve().parents[1]
BUILDING = (ROLE / "templates/Dockerfile.j2", ROLE / "files/install")


def source_files(folder: str) -> list[str]:
    """The files that the builder gets and the digest is made of, sorted, relative to the folder.

    Raises FileNotFoundError where the folder is none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"the app's source {folder} is no folder; give the folder that holds its Dockerfile")
    # A virtual environment, whatever it is called.
    environments = {path.parent.relative_to(root) for path in root.rglob("pyvenv.cfg")}
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(
        str(path)
        for path in found
        if not any(ignored(part) for part in path.parts)
        and path.parts[0] != "instance"
        and not environments.intersection(path.parents)
    )


def ignored(part: str) -> bool:
    """Whether a part of a path belongs to no image: `.env` and its like (`.env.local`) hold passwords."""
    return part in IGNORED or part == ".env" or part.startswith(".env.") or part.endswith(".egg-info")


def source_digest(folder: str, recipe: str = "") -> str:
    """SHA-256 in hex over names, contents and the right to run of `source_files`, and over how they are built."""
    total = hashlib.sha256(recipe.encode())
    for path in BUILDING if recipe else ():
        total.update(path.read_bytes())
    for name in source_files(folder):
        path = Path(folder, name)
        status = path.stat()
        total.update(f"{name}\0{status.st_size}\0{bool(status.st_mode & 0o100)}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def built_tag(image: str, digest: str) -> str:
    """The tag of what is built of a source with this digest: `shop:1` becomes `shop:1-0123456789ab`."""
    separator = "-" if ":" in image.rpartition("/")[2] else ":"
    return f"{image}{separator}{digest[:12]}"


# What of the controller's pip also holds on the host: where packages come from, not where they are kept.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries", "cert")


def pip_settings(listed: str) -> dict[str, str]:
    """The settings above from what `pip config list` prints; the environment's go first, then the rest as pip has it."""
    found: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.strip().rpartition(".")
        if name in PIP_SETTINGS and section in {"global", "install", ":env:"}:
            text = str(ast.literal_eval(value)) if value[:1] in "'\"" else value
            if section == ":env:" or name not in found:
                found[name] = " ".join(text.split())
    return found


def pip_config(settings: dict[str, str]) -> str:
    """The text of a pip.conf with the settings; the certificates are those in /run/pip."""
    lines = [
        f"{name} = {value}"
        for name, value in (settings | ({"cert": "/run/pip/ca.pem"} if "cert" in settings else {})).items()
    ]
    return "\n".join(["[global]", *lines, ""])


def pip_arguments(settings: dict[str, str]) -> dict[str, str]:
    """The settings as build arguments that pip reads from its environment. No path of this machine is among them."""
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items() if name != "cert"}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {
            "built_tag": built_tag,
            "pip_arguments": pip_arguments,
            "pip_config": pip_config,
            "pip_settings": pip_settings,
            "source_digest": source_digest,
            "source_files": source_files,
        }
