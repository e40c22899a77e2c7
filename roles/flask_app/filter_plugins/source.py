"""The files of a source folder, their digest and tag, and the controller's pip settings."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

# Not in an image: history, caches of tools, and Flask's instance folder, which holds secrets of the machine.
# `build` and `dist` are: a Dockerfile may copy what another tool wrote there.
IGNORED = {
    ".git", ".venv", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "node_modules",
}  # fmt: skip
INSTANCE = "instance"

# What a source without a Dockerfile is built with.
ROLE = Path(__file__).resolve().parents[1]
RECIPE_FILES = (ROLE / "templates/Dockerfile.j2", ROLE / "files/install")


def source_files(folder: str) -> list[str]:
    """The files of the build context, sorted, relative to the folder.

    Raises FileNotFoundError if it is not a directory.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"source {folder} is not a directory. Set it to the app's directory on the controller.")
    # A virtual environment of any name.
    environments = {path.parent.relative_to(root) for path in root.rglob("pyvenv.cfg")}
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(
        str(path)
        for path in found
        if not any(is_ignored(part) for part in path.parts)
        and path.parts[0] != INSTANCE
        and not environments.intersection(path.parents)
    )


def is_ignored(part: str) -> bool:
    """Whether a part of a path is left out; `.env` and `.env.local` hold passwords."""
    return part in IGNORED or part == ".env" or part.startswith(".env.") or part.endswith(".egg-info")


def source_digest(folder: str, recipe: str = "") -> str:
    """SHA-256 in hex over names, contents and executable bits of `source_files`, and over the recipe."""
    total = hashlib.sha256(recipe.encode())
    for path in RECIPE_FILES if recipe else ():
        total.update(path.read_bytes())
    for name in source_files(folder):
        path = Path(folder, name)
        status = path.stat()
        total.update(f"{name}\0{status.st_size}\0{bool(status.st_mode & 0o100)}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def built_tag(image: str, digest: str) -> str:
    """The image's tag for a source with this digest: `shop:1` becomes `shop:1-0123456789ab`."""
    separator = "-" if ":" in image.rpartition("/")[2] else ":"
    return f"{image}{separator}{digest[:12]}"


# The controller's pip settings that hold on the host too: where packages come from, not where they are stored.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries", "cert")


def pip_settings(listed: str) -> dict[str, str]:
    """PIP_SETTINGS from the output of `pip config list`; environment variables come before files, as in pip."""
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
    """A pip.conf with the settings; certificates are mounted at /run/pip."""
    mounted = {"cert": "/run/pip/ca.pem"} if "cert" in settings else {}
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in (settings | mounted).items()), ""])


def pip_arguments(settings: dict[str, str]) -> dict[str, str]:
    """The settings as build arguments, which pip reads from its environment; without paths of the controller."""
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items() if name != "cert"}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {
            "built_tag": built_tag,
            "pip_arguments": pip_arguments,
            "pip_config": pip_config,
            "pip_settings": pip_settings,
            "source_digest": source_digest,
            "source_files": source_files,
        }
