"""Traffic for the demo shop: a limited, seeded mix of requests, so that dashboards show something.

    python -m shop.traffic --url http://127.0.0.1:8000 --seconds 60 --users 4 --seed 1

Needs only the standard library, so the file also runs by itself. The same seed gives the same visits.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request

PRODUCTS = 12
# As in most shops, few products get most of the interest: the weights of a Zipf distribution.
_INTEREST = [1 / rank for rank in range(1, PRODUCTS + 1)]
_TIMEOUT_SECONDS = 10.0
_PROGRESS_SECONDS = 10.0
_RESTOCK_SECONDS = 20.0
# No handlers of proxies, redirects and errors: the shop is near, and each status is an answer.
_opener = OpenerDirector()
_opener.add_handler(HTTPHandler())
_opener.add_handler(HTTPSHandler())


class Step(NamedTuple):
    """One request and the seconds to wait after it; `{order}` in `path` is the id of the user's last order."""

    method: str
    path: str
    think: float
    body: dict[str, object] | None = None
    form: bool = False


def visit(rng: random.Random) -> Iterator[Step]:
    """Yield the requests of one user: about a third order, some send invalid input, some follow a dead link."""

    def think(median: float) -> float:
        return min(max(median * rng.lognormvariate(0, 0.6), 0.05), 10.0)

    def product() -> int:
        return rng.choices(range(1, PRODUCTS + 1), _INTEREST)[0]

    yield Step("GET", "/", think(1.5))
    if rng.random() < 0.05:
        yield Step("GET", f"/offers/{rng.randrange(100)}", think(1.0))
    for _ in range(rng.choice((1, 1, 2, 2, 3, 5))):
        if rng.random() < 0.4:
            yield Step("GET", f"/products?limit=6&offset={rng.choice((0, 0, 6))}", think(1.2))
        number = product() if rng.random() > 0.03 else 9999
        yield Step("GET", f"/products/{number}", think(2.0))
    if rng.random() < 0.35:
        quantity = rng.choice((1, 1, 1, 2, 3)) if rng.random() > 0.04 else rng.choice((0, 500))
        body: dict[str, object] = {"product_id": product(), "quantity": quantity}
        if rng.random() < 0.3:
            yield Step("POST", "/buy", think(1.0), body, form=True)
        else:
            yield Step("POST", "/orders", think(1.0), body)
            for _ in range(rng.choice((0, 1, 1, 2))):
                yield Step("GET", "/orders/{order}", think(3.0))


def send(method: str, url: str, body: dict[str, object] | None = None, form: bool = False) -> tuple[int, bytes]:
    """Return status (0 without an answer) and body of one request; each has a connection of its own."""
    headers = {"User-Agent": "vantage-traffic", "Accept": "text/html, application/json"}
    data = None
    # A new key for each order: running the same seed again orders again.
    if form:
        data = urlencode({**(body or {}), "key": uuid.uuid4().hex})
    elif body is not None:
        data = json.dumps(body)
        headers |= {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
    request = Request(url, None if data is None else data.encode(), headers, method=method)
    try:
        with _opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            return response.status, response.read()
    except (OSError, HTTPException) as error:
        return 0, str(error).encode()


class LoadGenerator:
    """Sends requests as the `options` of the command line say, until the end of a round or until `stop` is set."""

    def __init__(self, options: argparse.Namespace, stop: threading.Event) -> None:
        self._options = options
        self._stop = stop

    def run(self, seed: int) -> int:
        """Send one round of requests; returns the number of answers."""
        options = self._options
        # (status, seconds) of each request; appending is atomic.
        self._results: list[tuple[int, float]] = []
        self._report(f"{options.users} users at {options.url} for {options.seconds:g} s, seed {seed}")
        begin = time.monotonic()
        self._end = begin + options.seconds
        with ThreadPoolExecutor(options.users + 2) as pool:
            for number in range(options.users):
                pool.submit(self._visit, random.Random(f"{seed}/{number}"))
            if options.warehouse:
                pool.submit(self._restock, random.Random(seed))
            if options.errors or options.latency:
                pool.submit(self._inject_faults)
            while self._wait(_PROGRESS_SECONDS):
                self._report_totals(time.monotonic() - begin)
        self._report_totals(time.monotonic() - begin)
        return sum(status > 0 for status, _ in self._results)

    def _wait(self, seconds: float) -> bool:
        """Wait; returns False at the end of the round."""
        left = self._end - time.monotonic()
        return left > 0 and not self._stop.wait(min(seconds, left)) and time.monotonic() < self._end

    def _visit(self, rng: random.Random) -> None:
        pace = self._options.pace
        while self._wait(rng.uniform(0, 3) / pace):
            order = ""
            for step in visit(rng):
                if "{order}" in step.path and not order:
                    continue
                url = self._options.url + step.path.replace("{order}", order)
                status, body = self._send(step.method, url, step.body, step.form)
                if step.path == "/orders" and status in (200, 201):
                    order = str(json.loads(body).get("id", ""))
                if not self._wait(step.think / pace):
                    return

    def _restock(self, rng: random.Random) -> None:
        # Without new stock, a service would be sold out within weeks.
        while self._wait(_RESTOCK_SECONDS):
            (product,) = rng.choices(range(1, PRODUCTS + 1), _INTEREST)
            self._send("POST", f"{self._options.warehouse}/products/{product}/restock", {"quantity": 50})

    def _send(self, *request: Any) -> tuple[int, bytes]:
        started = time.perf_counter()
        status, body = send(*request)
        self._results.append((status, time.perf_counter() - started))
        return status, body

    def _inject_faults(self) -> None:
        options = self._options
        if not options.fault_begin or self._wait(options.fault_begin):
            self._switch_faults("PUT", {"error_rate": options.errors, "latency_ms": options.latency})
            self._wait(options.fault_seconds)
            # No fault stays behind, however the round ends.
            self._switch_faults("DELETE")

    def _switch_faults(self, method: str, faults: dict[str, object] | None = None) -> None:
        status, answer = 0, b"no URL"
        if self._options.warehouse:
            status, answer = send(method, f"{self._options.warehouse}/faults", faults)
        if status in (200, 204):
            self._report(f"faults: {json.dumps(faults) if faults else 'off'}")
        else:
            reason = f"status {status} {answer.decode(errors='replace').strip()[:200]}"
            fix = "Use --warehouse URL, and start the warehouse with SHOP_FAULTS=on."
            self._report(f"cannot switch faults: {reason}. {fix}")

    def _report(self, text: str, **fields: Any) -> None:
        """Print a line: text, or with --json one JSON object that has `fields` as well."""
        if self._options.json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            text = json.dumps({"timestamp": now, "level": "info", "message": text, "service": "traffic", **fields})
        print(text, flush=True)

    def _report_totals(self, elapsed: float) -> None:
        results = list(self._results)
        failed = sum(status == 0 or status >= 500 for status, _ in results)
        times = sorted(seconds for _, seconds in results) or [0.0]
        # The nearest rank, in ms.
        p50, p95 = (round(times[math.ceil(share * len(times)) - 1] * 1000, 1) for share in (0.5, 0.95))
        share = failed / max(len(results), 1)
        text = f"{len(results)} requests in {elapsed:.0f} s, {failed} failed ({share:.1%}), p95 {p95:g} ms"
        self._report(text, requests=len(results), failed=failed, p50_ms=p50, p95_ms=p95)


def find_problem(url: str) -> str:
    """Return why the server at `url` is not the shop; empty for the shop, and while it does not answer or fails."""
    status, body = send("GET", f"{url}/products?limit=1")
    try:
        is_shop = status == 200 and "items" in json.loads(body)
    except (ValueError, TypeError):
        is_shop = False
    if is_shop or status == 0 or status >= 500:
        return ""
    return (
        f"not the demo shop: {url} (GET /products answered {status}). Use --url with the URL of a shop; "
        "for your own app, generate traffic with another program, for example curl."
    )


def _number(kind: type[int] | type[float], low: float, high: float) -> Any:
    def read(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"out of range: {text} ({low:g} to {high:g})")
        return value

    return read


def _url(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise argparse.ArgumentTypeError(f"invalid URL: {text!r} (http or https). Use e.g. http://127.0.0.1:8000.")
    return text.rstrip("/")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="shop.traffic", description=(__doc__ or "").split("\n")[0])
    add = made.add_argument
    add("--url", type=_url, default="http://127.0.0.1:8000", help="the storefront")
    add("--warehouse", type=_url, help="the warehouse; enables restocking and faults")
    add("--seconds", type=_number(float, 1, 86400), default=60.0, help="length of a round")
    add("--rounds", type=_number(int, 0, 10**6), default=1, help="number of rounds; 0 runs until stopped")
    add("--users", type=_number(int, 1, 100), default=4, help="simulated users at a time")
    add("--pace", type=_number(float, 0.1, 20), default=1.0, help="speed; 2 halves the time between requests")
    add("--seed", type=_number(int, 0, 2**31 - 1), default=1, help="the same seed sends the same requests")
    add("--errors", type=_number(float, 0, 1), default=0.0, help="share of requests that fail by a fault")
    add("--latency", type=_number(int, 0, 10_000), default=0, help="latency in ms that a fault adds")
    add("--fault-begin", type=_number(float, 0, 86400), default=0.0, help="seconds before the faults begin")
    add("--fault-seconds", type=_number(float, 1, 86400), default=86400.0, help="duration of the faults")
    add("--json", action="store_true", help="print one JSON object per line")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the rounds; returns 0, or 1 without a shop."""
    options = parser().parse_args(argv)
    if problem := find_problem(options.url):
        print(f"traffic: {problem}", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    generator = LoadGenerator(options, stop)
    answers = done = 0
    while not stop.is_set() and (options.rounds == 0 or done < options.rounds):
        answers += generator.run(options.seed + done)
        done += 1
    if not answers and not stop.is_set():
        print(f"traffic: no answer: {options.url}. Start the shop, or use --url.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
