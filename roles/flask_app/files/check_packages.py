#!/usr/bin/env python3
"""Tells whether the installed packages work together; runs in the base image after the installation.

    check_packages.py PYTHON DEPENDENCIES MODULE…

PYTHON is the environment's interpreter and DEPENDENCIES the file that lists its packages. Prints each conflict, with the
line that asks for the package. Fails only if one of the modules cannot be imported: many conflicts do no harm.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# What `pip check` prints.
CONFLICT = re.compile(
    r"^(?P<by>\S+) \S+ has requirement (?P<wanted>.+), but you have (?P<name>\S+) (?P<version>\S+?)\.?$"
)


def canonical(name: str) -> str:
    """A package's name in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def line_of(package: str, path: Path) -> str:
    """`requirements.txt:2: ` for the line that asks for a package; empty if there is none."""
    if not path.is_file():
        return ""
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = re.match(r"""\s*["']?([A-Za-z0-9][\w.-]*)""", line)
        if found and canonical(found[1]) == canonical(package):
            return f"{path.name}:{number}: "
    return ""


def conflicts(checked: str, path: Path) -> list[str]:
    """One line for each conflict that `pip check` printed."""
    return [
        f"{line_of(found['name'], path)}{found['name']} {found['version']} conflicts with {found['by']}, "
        f"which requires {found['wanted']}"
        for found in map(CONFLICT.match, checked.splitlines())
        if found
    ]


def main(python: str, dependencies: str, *modules: str) -> int:
    pip = [sys.executable, "-m", "pip", "--python", python, "check"]
    checked = subprocess.run(pip, capture_output=True, text=True, errors="replace", check=False).stdout
    found = conflicts(checked, Path(dependencies))
    for module in modules:
        command = [python, "-c", f"import {module}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            print(
                f"the installed packages do not work together: import {module}: {last}",
                *found,
                sep="\n",
                file=sys.stderr,
            )
            return 1
    print(*found, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
