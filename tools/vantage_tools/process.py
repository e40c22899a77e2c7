"""Run other programs, from the root of the checkout; find processes and hold locks."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT, cache_dir

# A user's PATH lacks sbin, where dockerd and libvirtd are; the pinned tools come first.
SEARCH_PATH = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/local/sbin:/usr/sbin:/sbin")


def prepare_environment() -> None:
    """Let child processes find the environment's programs, those of sbin, and the cache."""
    os.environ["PATH"] = os.pathsep.join(SEARCH_PATH)
    os.environ["VANTAGE_CACHE"] = str(cache_dir())


def run(*argv: str | Path, **options: Any) -> None:
    """Run a program on the user's terminal; raise CalledProcessError if it fails.

    On Ctrl-C the program gets the signal too. It may take its time to clean up: subprocess.run would kill it.
    """
    words = [str(word) for word in argv]
    process = subprocess.Popen(words, cwd=ROOT, **options)
    interrupted = False
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    if code:
        raise subprocess.CalledProcessError(code, words)


def output(*argv: str | Path, cwd: Path = ROOT) -> str:
    """Return the program's standard output; raise CalledProcessError if it fails."""
    return subprocess.run(
        [str(word) for word in argv], check=True, cwd=cwd, text=True, stdin=subprocess.DEVNULL, capture_output=True
    ).stdout


def capture(*argv: str | Path, cwd: Path = ROOT, **options: Any) -> subprocess.CompletedProcess[str]:
    """Return the finished program, with all that it printed as `stdout`; its exit code is not checked."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in argv], check=False, cwd=cwd, text=True, errors="replace", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip
    return done


def replace_process(*argv: str | Path) -> NoReturn:
    os.chdir(ROOT)
    os.execvp(argv[0], [str(word) for word in argv])


def succeeds(*argv: str | Path, timeout: float | None = None) -> bool:
    """Return whether the program exits with 0; False if it is not installed or too slow."""
    try:
        return not capture(*argv, timeout=timeout).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def sudo() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo"]


def last_lines(text: str, count: int) -> str:
    return "\n".join(text.splitlines()[-count:])


def running_pid(pid_file: Path, word: str) -> int:
    """Return the process in the file, or 0; `word` is its name or one of its arguments, for numbers are reused."""
    try:
        pid = int(pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (OSError, ValueError):
        return 0
    return pid if word in (Path(arguments[0]).name, *arguments[1:]) else 0


@contextmanager
def lock(path: Path, busy: str = "") -> Iterator[None]:
    """Hold a lock file; wait for another process that has it, or raise UserError if `busy` says what it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy:
                raise UserError(busy, "wait until it ends.") from None
            print(f"waiting for another run, which has locked {path}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
