"""Waits until every service says that it is ready: `python -m compose.ready FILE`, the output of `docker compose config`."""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def urls(document: dict[str, Any]) -> dict[str, str]:
    """Where each service says that it is ready."""
    found = {name: service.get("labels", {}).get("vantage.ready") for name, service in document["services"].items()}
    return {name: url for name, url in found.items() if url}


def top(url: str) -> str:
    """The address without its path."""
    return "/".join(url.split("/")[:3])


def where(document: dict[str, Any]) -> dict[str, str]:
    """Where a person finds each service: its first published port, which need not be the one that says it is ready."""
    found = {}
    for name, url in urls(document).items():
        ports = document["services"][name].get("ports", [])
        address = f"{ports[0].get('host_ip', '0.0.0.0')}:{ports[0]['published']}" if ports else ""
        found[name] = "http://" + address.replace("0.0.0.0", "127.0.0.1") if ports else top(url)
    return found


def answer(url: str) -> str:
    """What is wrong, or nothing where the service is ready."""
    try:
        with OPENER.open(url, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"answers {error.code}: {error.read(200).decode(errors='replace').strip()}"
    except OSError as error:
        return str(error)


def wait(services: dict[str, str], seconds: float) -> dict[str, str]:
    """What is wrong with those that are not ready in time."""
    deadline = time.monotonic() + seconds
    left = dict(services)
    while True:
        wrong = {name: said for name, url in left.items() if (said := answer(url))}
        for name in set(left) - set(wrong):
            print(f"{name} is ready")
            del left[name]
        if not left or time.monotonic() > deadline:
            return wrong
        time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="- for the standard input")
    parser.add_argument("--url", metavar="SERVICE", help="print the start of this service's address instead")
    parser.add_argument("--where", action="store_true", help="print where each service is instead")
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    document = json.loads(text)
    services = urls(document)
    if options.url:
        print(top(services[options.url]))
        return 0
    if options.where:
        print("\n".join(f"  {name:<14} {address}/" for name, address in where(document).items()))
        return 0
    wrong = wait(services, options.seconds)
    for name, said in wrong.items():
        print(f"compose: {name} is not ready after {options.seconds:.0f} s: {services[name]} {said}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
