"""Reads the log of an app that did not start: where it failed, and which setting of the app mends it."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+)')
# Code of others, from which an error is raised that the app's own line caused.
FOREIGN = re.compile(r"/site-packages/|/dist-packages/|/lib/python\d|/bin/|^<")
QUOTED = re.compile(r"[\"'‘“]([^\"'’”]+)[\"'’”]|cannot create ([^\s:]+):")
BEFORE_START = 'for example before_start: "python3 -m flask --app board db upgrade"'


class Container(NamedTuple):
    """What advice needs to know of the container: where it starts, and as whom."""

    folder: str = "/"
    user: str = ""


def plain_lines(log: str) -> list[str]:
    """The lines of the log, a JSON line as its message and its stack trace."""
    found: list[str] = []
    for line in log.splitlines():
        try:
            fields = json.loads(line) if line.startswith("{") else None
        except ValueError:
            fields = None
        texts = [line]
        if isinstance(fields, dict):
            texts = [str(value) for key, value in fields.items() if re.search(r"message$|stack", key)] or texts
        found += [part for text in texts for part in text.splitlines()]
    return found


def find_cause(log: str, folder: str = "/") -> str:
    """`file, line N: the exception` of the last traceback, with the app's own file; empty without a traceback."""
    lines = plain_lines(log)
    frames = [(number, match) for number, line in enumerate(lines) if (match := FRAME.match(line))]
    if not frames:
        return ""
    first = max((n for n, line in enumerate(lines) if line.startswith("Traceback ")), default=0)
    last_number, last = frames[-1]
    own = [match for number, match in frames if number > first and not FOREIGN.search(match[1])]
    file, line = (own[-1] if own else last).groups()
    error = next((line for line in lines[last_number + 1 :] if line.strip() and not line[0].isspace()), "")
    if file.startswith(folder.rstrip("/") + "/") and folder != "/":
        file = posixpath.relpath(file, folder)
    return f"{file}, line {line}: {error[:300]}".rstrip(": ")


def denied_directory(line: str, folder: str) -> str:
    """The directory that the app wanted to write to, in full; empty if the line does not name it."""
    names = [first or second for first, second in QUOTED.findall(line)]
    if not names:
        return ""
    path = posixpath.normpath(posixpath.join(folder, names[-1]))
    # The directory of a file, whose name has a suffix.
    return posixpath.dirname(path) if "." in posixpath.basename(path).lstrip(".") else path


def advise_writing(line: str, container: Container) -> str:
    """For a read-only file system, and for a directory that belongs to another user."""
    path = denied_directory(line, container.folder)
    if posixpath.dirname(path) == "/" and posixpath.basename(path).startswith("."):
        return (
            "The app writes to its home directory. Set HOME in environment to a directory it may write to, e.g. /tmp."
        )
    is_read_only = "ead-only" in line
    user = f"user {container.user or 'of the app'}"
    if path in ("", "/", container.folder):
        where = "the read-only root file system" if is_read_only else f"files that {user} may not write"
        return (
            f"The app writes to {where}. It may write to /tmp, to data (kept) and to the directories in writable "
            "(empty at each start): let it write into a directory of its own, and set data or writable to that."
        )
    why = "is in the read-only root file system" if is_read_only else f"is not writable for {user}"
    other = "" if is_read_only else ", or user to its owner in the image"
    return (
        f"{path} {why}. Set data to {path} to keep what the app writes there, writable to lose it at each start{other}."
    )


# The first that matches explains the log. The text may be a function of the matching line.
ADVICE: list[tuple[str, str | Callable[[str, Container], str]]] = [
    (r"Read-only file system", advise_writing),
    (r"\[Errno 13\]|: Permission denied|\(13: Permission denied\)", advise_writing),
    (
        r"unable to open database file|attempt to write a readonly database",
        "SQLite cannot write its file. Let the app open it in a directory of its own, and set data to that directory.",
    ),
    (
        r"no such table|relation \S+ does not exist|Table '\S+' doesn't exist",
        f"The app's tables are missing. Set before_start to the command that creates them, {BEFORE_START}, "
        "or health_path to a path that needs none.",
    ),
    (
        r"uid not found: (\d+)",
        "The user has no entry in the image's /etc/passwd. Add one, or set user to one that has (uid:gid).",
    ),
    (
        r"No module named '([^']+)'",
        "The image has no module {0}. Add its package to the app's requirements; if it is the app's own, "
        "set object (flask_app_object) to package.module:name as seen from the import directory.",
    ),
    (
        r"cannot import name '[^']+' from '([^']+)' \([^)]*(?:site-packages|dist-packages|/lib/python\d)",
        "The installed packages do not work together, or with this Python: {0} has changed. Update the pins in the app's "
        "requirements, or use the Python that they were made for.",
    ),
    (
        r"Connection refused|Cannot assign requested address|Name or service not known|Temporary failure in name resolution|could not translate host name",
        "The app needs another service, for example its database, which does not answer. Run it, and set its address in "
        "environment (flask_app_environment): 127.0.0.1 is the app's own container, the host is vantage_network_gateway.",
    ),
    (r"No such command '([^']+)'", "The flask command does not see the app's packages. Run it as `python3 -m flask`."),
]


def environment_variable(lines: list[str]) -> str:
    """The variable that `os.environ[…]` did not find."""
    for number, line in enumerate(lines):
        # Python 3.13 shows no source line of its module os.
        is_environ = re.search(r'raise KeyError\(key\) from None|File "(<frozen os>|\S*/os\.py)"', lines[number - 1])
        if is_environ and (match := re.match(r"KeyError: '(\w+)'", line)):
            return match[1]
    return ""


def advise(log: str, container: Container) -> str:
    """Which key of the app mends what the log says; empty where nothing is recognised."""
    return next(_advices(log, container), "")


def _advices(log: str, container: Container) -> Iterator[str]:
    lines = plain_lines(log)
    # The exception that ended the app, before what it survived.
    for searched in ([find_cause(log, container.folder)], lines):
        for pattern, text in ADVICE:
            for line in reversed(searched):
                if match := re.search(pattern, line):
                    yield text.format(*match.groups()) if isinstance(text, str) else text(line, container)
    if name := environment_variable(lines):
        yield (
            f"The app needs the environment variable {name}. Set it in environment (flask_app_environment), or env_file "
            "(flask_app_env_file) to the file that has it: a .env is not deployed by itself."
        )
