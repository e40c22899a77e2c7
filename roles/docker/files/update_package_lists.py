#!/usr/bin/env python3
"""Updates apt's package lists, as far as their sources answer, and prints as JSON which do not.

    busy     str    the process that holds a lock of apt, for which nothing was done; empty if none does
    failed   list   one text for each source that failed: its file and apt's words

Exit status 75 while another process holds the lock, so that the caller retries and shows that it waits.

Not the module `apt`: it fails at the first dead source with an empty message, although Docker may come from another one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

TRY_AGAIN = 75
LOCKS = [Path(name) for name in ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")]
SOURCES = Path("/etc/apt")
PROC = Path("/proc")


def lock_holder() -> str:
    """The process that holds one of apt's locks, with its pid; empty if none does."""
    inodes = {str(path.stat().st_ino): path for path in LOCKS if path.exists()}
    for line in (PROC / "locks").read_text(encoding="ascii").splitlines():
        # 1: POSIX  ADVISORY  WRITE 4711 08:01:393226 0 EOF; a line with -> is a process that waits.
        found = re.search(r"(?<!-> )POSIX +\S+ +WRITE +(\d+) \w+:\w+:(\d+) ", line)
        if found and found[2] in inodes:
            return f"{process_name(found[1])} (pid {found[1]})"
    return ""


def process_name(pid: str) -> str:
    try:
        return (PROC / pid / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"


def source_files() -> dict[str, str]:
    """The URIs that apt's sources name, each with its file."""
    parts = SOURCES / "sources.list.d"
    found: dict[str, str] = {}
    for path in [SOURCES / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]:
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
            found |= dict.fromkeys(re.findall(r"\w+:/[^\s\]]*", text), str(path))
    return found


def failed_sources(output: str, files: dict[str, str]) -> list[str]:
    """What apt says of each source that failed, after the name of its file; other errors as apt prints them."""
    failed: dict[str, str] = {}
    errors = []
    for line in output.splitlines():
        found = re.match(r"[EW]: .*?(\w+:/[^\s']+)", line)
        words = line.partition(": ")[2].strip()
        if found:
            uri = next((uri for uri in files if found[1].startswith(uri.rstrip("/"))), found[1])
            # Errors come last, and say more than warnings about the same source.
            failed[uri] = f"{files[uri]}: {words}" if uri in files else words
        elif line.startswith("E: "):
            errors.append(words)
    return list(failed.values()) or errors


def main() -> int:
    busy, output = lock_holder(), ""
    if not busy:
        done = subprocess.run(
            ["apt-get", "-q", "-o", "Acquire::Retries=2", "update"],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", env=os.environ | {"LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        output = done.stdout
        if "Could not get lock" in output:
            busy = lock_holder() or "another process"
    print(json.dumps({"busy": busy, "failed": [] if busy else failed_sources(output, source_files())}))
    return TRY_AGAIN if busy else 0


if __name__ == "__main__":
    sys.exit(main())
