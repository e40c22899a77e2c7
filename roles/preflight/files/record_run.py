#!/usr/bin/env python3
"""Records which run of a playbook changes this host, so that a second run does not mix with it.

    record_run.py begin FILE RUN [REPLACED]   record the run, unless another one is recorded; prints that one, or {}
    record_run.py end FILE ID                 remove the record, if it is that of this run

RUN is a JSON object with `id`; REPLACED is the id of a run that ended without removing its record.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    """The file, opened and locked; a file that the former holder of the lock removed is not used."""
    while True:
        with path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_current(path, file):
                file.seek(0)
                yield file
                return


def is_current(path: Path, file: TextIO) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def read(file: TextIO) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read()))
    except ValueError:
        return {}


def begin(path: Path, run: dict[str, Any], replaced: str = "") -> dict[str, Any]:
    """Records the run; returns the run that is recorded already, with its age in seconds, or nothing."""
    with locked(path) as file:
        found = read(file)
        if found and found.get("id") not in {run["id"], replaced}:
            return {**found, "age": time.time() - path.stat().st_mtime}
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        json.dump({**run, "since": since}, file)
        return {}


def end(path: Path, run_id: str) -> None:
    with locked(path) as file:
        if read(file).get("id", run_id) == run_id:
            path.unlink()


def main(argv: list[str]) -> None:
    step, path = argv[0], Path(argv[1])
    if step == "begin":
        print(json.dumps(begin(path, json.loads(argv[2]), *argv[3:])))
    else:
        end(path, argv[2])
        print("{}")


if __name__ == "__main__":
    main(sys.argv[1:])
