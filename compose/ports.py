"""Refuses ports that something else has: `python -m compose.ports FILE`, the output of `docker compose config`."""

from __future__ import annotations

import argparse
import errno
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = "com.docker.compose.project"


def published(document: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Service, address and port of everything that is published."""
    return [
        (name, entry.get("host_ip", "0.0.0.0"), int(entry["published"]))
        for name, service in document["services"].items()
        for entry in service.get("ports", [])
        # One that Docker chooses, alone or of a range, is free.
        if str(entry.get("published", "")).isdigit()
    ]


def is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # A connection that is just being closed holds nothing; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def holder(port: int, project: str) -> str:
    """The container with this port, or that it is another program; empty for one of the project's own."""
    shown = subprocess.run(
        ["docker", "ps", "--filter", f"publish={port}", "--format", f'{{{{.Names}}}}|{{{{.Label "{PROJECT}"}}}}'],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    names = [line.partition("|") for line in shown if line]
    if any(owner == project for _, _, owner in names):
        return ""
    return f"the container {names[0][0]}" if names else "a program outside Docker"


def taken(document: dict[str, Any]) -> list[str]:
    """One line for each port that is not free."""
    return [
        f"{name} wants {address}:{port}, which {who} has"
        for name, address, port in published(document)
        if not is_free(address, port) and (who := holder(port, document["name"]))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    found = taken(json.loads(Path(parser.parse_args().file).read_text(encoding="utf-8")))
    for line in found:
        print(f"compose: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
