"""The local container engine, through the docker command; nothing here starts an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from vantage_tools.errors import UserError
from vantage_tools.process import last_lines

from .archive import Ids, add_index, compress, ids_in_archive, naming_damage


def _docker(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", "docker: not found")


def require(purpose: str) -> None:
    if _docker("version", "--format", "{{.Server.Version}}").returncode != 0:
        raise UserError(f"no Docker engine answers; {purpose} needs one", "Start Docker, then retry.")


def image_id(ref: str) -> str | None:
    done = _docker("image", "inspect", "--format", "{{.Id}}", ref)
    return done.stdout.strip() if done.returncode == 0 else None


def pull(ref: str) -> str | None:
    """Pull `ref`; return None, or the engine's reason why it could not."""
    done = _docker("pull", "--quiet", ref)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def load(archive: Path) -> None:
    """Load `archive` into the engine; raises UserError when the engine refuses it."""
    done = _docker("load", "--quiet", "--input", str(archive))
    if done.returncode != 0:
        raise UserError(
            f"docker load of {archive} failed: {done.stderr.strip()[-400:]}",
            f"Run: vantage images get --refresh {archive.name.removesuffix('.tar.gz')}",
        )


def save(ref: str, target: Path) -> Ids:
    """Save the local image `ref` to the archive `target`, complete or not at all."""
    saved = target.with_name(target.name + ".saved.partial")
    with compress(saved) as stream, subprocess.Popen(["docker", "save", ref], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        shutil.copyfileobj(process.stdout, stream, 1 << 20)
    if process.returncode != 0:
        raise UserError(f"docker save of {ref} failed: exit status {process.returncode}", "See the engine's log.")
    # From the archive, because this engine shows one of the two ids.
    with naming_damage(f"docker save of {ref}", f"Run: docker image rm {ref}, then retry."):
        ids = add_index(saved, ref, ids_in_archive(saved)[1])
    saved.replace(target)
    return ids


def build(context: Path, ref: str, arguments: Mapping[str, str], log: Path, *options: str) -> None:
    """Build `context` as `ref` with build arguments; raises UserError with the end of the log."""
    words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    # A client without the buildx plugin refuses BuildKit; the Dockerfile works with both builders.
    builder = {} if _docker("buildx", "version").returncode == 0 else {"DOCKER_BUILDKIT": "0"}
    with log.open("wb") as output:
        done = subprocess.run(["docker", "build", "--tag", ref, *options, *words, str(context)], check=False,
                              stdout=output, stderr=subprocess.STDOUT, env=os.environ | builder)  # fmt: skip
    if done.returncode != 0:
        said = last_lines(log.read_text(errors="replace"), 25)
        raise UserError(f"docker build of {ref} failed; its last lines:\n{said}", f"Read {log}.")
