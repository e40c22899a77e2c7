"""The local container engine, through the docker command; nothing here starts an engine."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from vantage_tools.errors import UserError
from vantage_tools.process import capture, last_lines, output, succeeds

from .archive import Ids, write_archive


def require(purpose: str) -> None:
    if not succeeds("docker", "version"):
        raise UserError(f"no Docker engine answers; {purpose} needs one", "Start Docker, then retry.")


def image_id(ref: str) -> str | None:
    done = capture("docker", "image", "inspect", "--format", "{{.Id}}", ref)
    # The client's warnings come before it.
    return last_lines(done.stdout.strip(), 1) if done.returncode == 0 else None


def pull(ref: str) -> str:
    """Pull `ref`; return the engine's reason why it could not, or nothing."""
    done = capture("docker", "pull", "--quiet", ref)
    return (last_lines(done.stdout.strip(), 1) or f"exit code {done.returncode}") if done.returncode else ""


def load(archive: Path, fix: str) -> list[str]:
    """Load `archive` into the engine and return its tags; raises UserError when the engine refuses it."""
    done = capture("docker", "load", "--quiet", "--input", archive)
    if done.returncode != 0:
        raise UserError(f"docker load of {archive} failed: {done.stdout.strip()[-400:]}", fix)
    return re.findall(r"^Loaded image: (.+)$", done.stdout, re.MULTILINE)


def save(ref: str, target: Path) -> Ids:
    """Save the local image `ref` to the archive `target`, complete or not at all.

    What `docker save` writes depends on its version, and before Docker 25 it lacks the OCI layout.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, suffix=".partial") as temporary:
        folder = Path(temporary)
        output("docker", "save", "--output", folder / "saved.tar", ref)
        output("tar", "-xf", folder / "saved.tar", "-C", folder)
        (entry,) = json.loads((folder / "manifest.json").read_bytes())
        layers = [folder / name for name in entry["Layers"]]
        return write_archive(target, ref, layers, (folder / entry["Config"]).read_bytes())


def build(context: Path, ref: str, arguments: Mapping[str, str], *options: str) -> None:
    """Build `context` as `ref` with build arguments; raises UserError with the end of the log."""
    words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    # A client without the buildx plugin refuses BuildKit; the Dockerfile works with both builders.
    builder = {} if succeeds("docker", "buildx", "version") else {"DOCKER_BUILDKIT": "0"}
    done = capture("docker", "build", "--tag", ref, *options, *words, context, env=os.environ | builder)
    if done.returncode != 0:
        raise UserError(f"docker build of {ref} failed; its last lines:\n{last_lines(done.stdout, 25)}")
