"""Wait for a condition, ask a URL whether its service is ready, and show how long each step takes."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

# Addresses of this machine, which a proxy does not know.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
STARTED = time.monotonic()


def step(text: str) -> None:
    """Print what begins, with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.3) -> bool:
    """Return whether the condition came true in time; it is asked once at least."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def url_problem(url: str) -> str:
    """Return why the URL does not answer with success, or nothing."""
    try:
        with OPENER.open(url, timeout=10):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"answers {error.code}: {error.read(200).decode(errors='replace').strip()}"
    except OSError as error:
        return str(error)
