"""The few things that are asked of the local container engine, through the docker command."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

from .archive import Ids, damage_named, give_index, ids_in_archive
from .errors import ImageError


def get_again(archive: Path) -> str:
    """Return the command that replaces a damaged archive of the store."""
    return f"run: images/vantage-images get --refresh {archive.name.removesuffix('.tar.gz')}"


class Docker:
    """The docker command `command`. Nothing here starts an engine: scripts/engine does."""

    def __init__(self, command: str = "docker") -> None:
        self._command = command

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run([self._command, *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return subprocess.CompletedProcess(words, 127, "", f"{self._command}: not found")

    def available(self) -> bool:
        """Return whether an engine answers."""
        return self._run("version", "--format", "{{.Server.Version}}").returncode == 0

    def require(self, purpose: str) -> None:
        """Raise ImageError when no engine answers."""
        if not self.available():
            raise ImageError("Docker engine", f"none answers, and {purpose} needs one", "run: scripts/engine")

    def image_id(self, ref: str) -> str | None:
        """Return the id of a local image, None when it is not there."""
        done = self._run("image", "inspect", "--format", "{{.Id}}", ref)
        return done.stdout.strip() if done.returncode == 0 else None

    def pull(self, ref: str) -> str | None:
        """Pull `ref`; return None, or the engine's reason why it could not."""
        done = self._run("pull", "--quiet", ref)
        return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def load(self, archive: Path) -> None:
        """Load `archive` into the engine; raises ImageError when it is refused."""
        done = self._run("load", "--quiet", "--input", str(archive))
        if done.returncode != 0:
            raise ImageError(str(archive), f"docker load refused it: {done.stderr.strip()[-400:]}",
                             get_again(archive))  # fmt: skip

    def save(self, ref: str, target: Path) -> Ids:
        """Save the local image `ref` to the gzipped archive `target`, complete or not at all."""
        partial = target.with_name(target.name + ".partial")
        with (
            partial.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
            subprocess.Popen([self._command, "save", ref], stdout=subprocess.PIPE) as process,
        ):
            assert process.stdout is not None
            shutil.copyfileobj(process.stdout, packed, 1 << 20)
        if process.returncode != 0:
            partial.unlink(missing_ok=True)
            raise ImageError(f"image {ref}", "docker save failed", "see the engine's log")
        # The archive's own ids: this engine may show either of the two.
        with damage_named(f"image {ref}", "docker save wrote an archive that is not whole",
                          f"docker image rm {ref}, then run it again"):  # fmt: skip
            ids = give_index(partial, ref, ids_in_archive(partial)[1])
        partial.replace(target)
        return ids

    def build(self, context: Path, ref: str, arguments: dict[str, str], log: Path, *, host_network: bool) -> None:
        """Build `context` as `ref` with build arguments; raises ImageError with the end of the log."""
        words = [self._command, "build", "--tag", ref]
        if host_network:
            words += ["--network", "host"]
        for key, value in arguments.items():
            words += ["--build-arg", f"{key}={value}"]
        environment = dict(os.environ)
        # Without the buildx plugin a newer client refuses BuildKit; the Dockerfile keeps to what both builders take.
        if self._run("buildx", "version").returncode != 0:
            environment["DOCKER_BUILDKIT"] = "0"
        with log.open("wb") as output:
            done = subprocess.run([*words, str(context)], stdout=output, stderr=subprocess.STDOUT,
                                  env=environment, check=False)  # fmt: skip
        if done.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise ImageError(f"image {ref}", f"docker build failed; its last lines:\n{tail}",
                             f"read the whole of it in {log}")  # fmt: skip
