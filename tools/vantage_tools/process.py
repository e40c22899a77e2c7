"""Run other programs, from the root of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from vantage_tools.paths import ROOT, cache_dir

# A user's PATH lacks sbin, where dockerd and libvirtd are; the pinned tools come first.
SEARCH_PATH = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/local/sbin:/usr/sbin:/sbin")

# The command that gets images.
IMAGES = (sys.executable, "-m", "vantage_tools", "images")


def prepare_environment() -> None:
    """Let child processes find the environment's programs, those of sbin, and the cache."""
    os.environ["PATH"] = os.pathsep.join(SEARCH_PATH)
    os.environ["VANTAGE_CACHE"] = str(cache_dir())


def run(*argv: str | Path, **options: Any) -> None:
    """Run a program on the user's terminal; raise CalledProcessError if it fails."""
    subprocess.run([str(word) for word in argv], check=True, cwd=ROOT, **options)


def output(*argv: str | Path) -> str:
    """Return the program's standard output; raise CalledProcessError if it fails."""
    return subprocess.run(
        [str(word) for word in argv], check=True, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, capture_output=True
    ).stdout


def replace_process(*argv: str | Path) -> NoReturn:
    """Run a program in place of this one, with its exit code."""
    os.chdir(ROOT)
    os.execvp(argv[0], [str(word) for word in argv])


def succeeds(*argv: str | Path, timeout: float | None = None) -> bool:
    """Return whether the program exits with 0; False if it is not installed or too slow."""
    command = [str(word) for word in argv]
    try:
        return not subprocess.run(
            command, check=False, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False
