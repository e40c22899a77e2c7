"""Traffic for the demo shop: a limited, seeded mix of requests, so that dashboards show something.

    python -m shop.traffic --url http://127.0.0.1:8000 --seconds 60 --users 4 --seed 1

Needs only the standard library, so the file also runs by itself. The same seed gives the same visits.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

PRODUCTS = 12
# As in most shops, few products get most of the interest: the weights of a Zipf distribution.
_INTEREST = [1 / rank for rank in range(1, PRODUCTS + 1)]
_TIMEOUT_SECONDS = 10.0
_PROGRESS_SECONDS = 10.0
_RESTOCK_SECONDS = 20.0


class Step(NamedTuple):
    """One request and the seconds to wait after it; `{order}` in `path` is the id of the visitor's last order."""

    method: str
    route: str
    path: str
    think: float
    body: dict[str, object] | None = None
    form: bool = False


def visit(rng: random.Random) -> Iterator[Step]:
    """Yield the requests of one visitor: about a third order, some send invalid input, some follow a dead link."""

    def think(median: float) -> float:
        return min(max(median * rng.lognormvariate(0, 0.6), 0.05), 10.0)

    def product() -> int:
        return rng.choices(range(1, PRODUCTS + 1), _INTEREST)[0]

    yield Step("GET", "/", "/", think(1.5))
    if rng.random() < 0.05:
        yield Step("GET", "_unmatched", f"/offers/{rng.randrange(100)}", think(1.0))
    for _ in range(rng.choice((1, 1, 2, 2, 3, 5))):
        if rng.random() < 0.4:
            yield Step("GET", "/products", f"/products?limit=6&offset={rng.choice((0, 0, 6))}", think(1.2))
        number = product() if rng.random() > 0.03 else 9999
        yield Step("GET", "/products/<int:product_id>", f"/products/{number}", think(2.0))
    if rng.random() < 0.35:
        quantity = rng.choice((1, 1, 1, 2, 3)) if rng.random() > 0.04 else rng.choice((0, 500))
        body: dict[str, object] = {"product_id": product(), "quantity": quantity}
        if rng.random() < 0.3:
            yield Step("POST", "/buy", "/buy", think(1.0), body, form=True)
        else:
            yield Step("POST", "/orders", "/orders", think(1.0), body)
            for _ in range(rng.choice((0, 1, 1, 2))):
                yield Step("GET", "/orders/<order_id>", "/orders/{order}", think(3.0))


def send(base: str, method: str, path: str, body: dict[str, object] | None = None, form: bool = False) -> Any:
    """Return status (0 without an answer) and body of one request; each has a connection of its own."""
    parts = urlsplit(base)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"User-Agent": "vantage-traffic", "Accept": "text/html, application/json"}
    data = None
    # A new key for each order: running the same seed again orders again.
    if form:
        data = urlencode({**(body or {}), "key": uuid.uuid4().hex})
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    elif body is not None:
        data = json.dumps(body)
        headers |= {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(method, parts.path.rstrip("/") + path, data, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode()
    finally:
        connection.close()


class FaultWindow(NamedTuple):
    """Faults in the warehouse from `begin` on for `seconds`; `body` is that of PUT /faults."""

    body: dict[str, object]
    begin: float
    seconds: float


class LoadGenerator:
    """Visitors of the shop at `url`, `users` at a time. A `pace` of 2 halves the time they wait."""

    def __init__(self, url: str, warehouse: str, users: int, pace: float, stop: threading.Event, as_json: bool):
        self._url, self._warehouse, self._users, self._pace = url, warehouse, users, pace
        self._stop, self._as_json = stop, as_json

    def run(self, seed: int, seconds: float, faults: FaultWindow | None) -> int:
        """Send visitors for `seconds` or until `stop` is set; returns the number of answers."""
        # (request, status, seconds) of each request; appending is atomic.
        self._results: list[tuple[str, int, float]] = []
        self.report(f"{self._users} visitors at {self._url} for {seconds:g} s, seed {seed}")
        begin = time.monotonic()
        end = begin + seconds
        jobs = [(self._visit, random.Random(f"{seed}/{n}")) for n in range(self._users)]
        jobs += [(self._restock, random.Random(seed))] if self._warehouse else []
        threads = [threading.Thread(target=job, args=(rng, end)) for job, rng in jobs]
        for thread in threads:
            thread.start()
        is_faulty, next_progress = False, _PROGRESS_SECONDS
        try:
            while (elapsed := time.monotonic() - begin) < seconds and not self._stop.wait(min(0.2, seconds - elapsed)):
                if faults and is_faulty != (faults.begin <= elapsed < faults.begin + faults.seconds):
                    is_faulty = not is_faulty
                    self._switch_faults(faults.body if is_faulty else None)
                if elapsed >= next_progress:
                    next_progress += _PROGRESS_SECONDS
                    self._report_totals(elapsed)
        finally:
            # No fault stays behind, however the round ends.
            if is_faulty:
                self._switch_faults(None)
            for thread in threads:
                thread.join(_TIMEOUT_SECONDS + 1)
        self._report_totals(time.monotonic() - begin)
        if not self._as_json:
            self._print_routes()
        return sum(status > 0 for _, status, _ in self._results)

    def _wait(self, seconds: float, end: float) -> bool:
        """Wait; returns False at the end of the round."""
        left = end - time.monotonic()
        return left > 0 and not self._stop.wait(min(seconds, left)) and time.monotonic() < end

    def _visit(self, rng: random.Random, end: float) -> None:
        while self._wait(rng.uniform(0, 3) / self._pace, end):
            order = ""
            for step in visit(rng):
                if "{order}" in step.path and not order:
                    continue
                status, body = self._request(self._url, step._replace(path=step.path.replace("{order}", order)))
                if step.path == "/orders" and status in (200, 201):
                    order = str(json.loads(body).get("id", ""))
                if not self._wait(step.think / self._pace, end):
                    return

    def _restock(self, rng: random.Random, end: float) -> None:
        # Without new stock, a service would be sold out within weeks.
        route = "/products/<int:product_id>/restock"
        while self._wait(_RESTOCK_SECONDS, end):
            path = f"/products/{rng.choices(range(1, PRODUCTS + 1), _INTEREST)[0]}/restock"
            self._request(self._warehouse, Step("POST", route, path, 0, {"quantity": 50}))

    def _request(self, base: str, step: Step) -> Any:
        started = time.perf_counter()
        status, body = send(base, step.method, step.path, step.body, step.form)
        self._results.append((f"{step.method} {step.route}", status, time.perf_counter() - started))
        return status, body

    def _switch_faults(self, body: dict[str, object] | None) -> None:
        status, answer = 0, b"no URL"
        if self._warehouse:
            status, answer = send(self._warehouse, "DELETE" if body is None else "PUT", "/faults", body)
        text = f"faults: {'off' if body is None else json.dumps(body)}"
        if status not in (200, 204):
            text = f"cannot switch faults: status {status} {answer.decode(errors='replace').strip()[:200]} "
            text += "Use --warehouse URL, and start the warehouse with SHOP_FAULTS=on."
        self.report(text)

    def report(self, text: str, **fields: Any) -> None:
        """Print a line: text, or with --json one JSON object that has `fields` as well."""
        if self._as_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            text = json.dumps({"timestamp": now, "level": "info", "message": text, "service": "traffic", **fields})
        print(text, flush=True)

    def _report_totals(self, elapsed: float) -> None:
        results = list(self._results)
        failed = sum(status == 0 or status >= 500 for _, status, _ in results)
        p50, p95, _ = _quantiles([seconds for _, _, seconds in results])
        share = failed / max(len(results), 1)
        text = f"{len(results)} requests in {elapsed:.0f} s, {failed} failed ({share:.1%}), p95 {p95:g} ms"
        self.report(text, requests=len(results), failed=failed, p50_ms=p50, p95_ms=p95)

    def _print_routes(self) -> None:
        print(f"\n{'request':<42}{'count':>7}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}  statuses")
        for name, count in Counter(name for name, _, _ in self._results).most_common():
            p50, p95, slowest = _quantiles([seconds for other, _, seconds in self._results if other == name])
            statuses = Counter(status for other, status, _ in self._results if other == name)
            shown = " ".join(f"{status or 'none'}:{number}" for status, number in sorted(statuses.items()))
            print(f"{name:<42}{count:>7}{p50:>9g}{p95:>9g}{slowest:>9g}  {shown}", flush=True)


def _quantiles(seconds: list[float]) -> list[float]:
    """Return the nearest-rank p50, p95 and maximum in ms; zeros for an empty list."""
    times = sorted(seconds) or [0.0]
    return [round(times[math.ceil(share * len(times)) - 1] * 1000, 1) for share in (0.5, 0.95, 1.0)]


def find_problem(url: str) -> str:
    """Return why the server at `url` is not the shop; empty for the shop, and while it does not answer or fails."""
    status, body = send(url, "GET", "/products?limit=1")
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


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="shop.traffic", description=(__doc__ or "").split("\n")[0])
    add = made.add_argument
    add("--url", default="http://127.0.0.1:8000", help="the storefront")
    add("--warehouse", default="", help="the warehouse; enables restocking and faults")
    add("--seconds", type=_number(float, 1, 86400), default=60.0, help="length of a round")
    add("--rounds", type=_number(int, 0, 10**6), default=1, help="number of rounds; 0 runs until stopped")
    add("--users", type=_number(int, 1, 100), default=4, help="visitors at a time")
    add("--pace", type=_number(float, 0.1, 20), default=1.0, help="speed; 2 halves the time between requests")
    add("--seed", type=_number(int, 0, 2**31 - 1), default=1, help="the same seed gives the same visits")
    add("--errors", type=_number(float, 0, 1), default=0.0, help="share of requests that fail by a fault")
    add("--latency", type=_number(int, 0, 10_000), default=0, help="latency in ms that a fault adds")
    add("--fault-begin", type=_number(float, 0, 86400), default=0.0, help="seconds before the faults begin")
    add("--fault-seconds", type=_number(float, 1, 86400), default=86400.0, help="duration of the faults")
    add("--json", action="store_true", help="print one JSON object a line")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the rounds; returns 0, or 1 without a shop, or 2 for an invalid argument."""
    options = parser().parse_args(argv)
    for url in filter(None, (options.url, options.warehouse)):
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            print(f"traffic: invalid URL: {url!r} (http or https). Use e.g. http://127.0.0.1:8000.", file=sys.stderr)
            return 2
    if problem := find_problem(options.url):
        print(f"traffic: {problem}", file=sys.stderr)
        return 1
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    faults = None
    if options.errors or options.latency:
        body: dict[str, object] = {"error_rate": options.errors, "latency_ms": options.latency}
        faults = FaultWindow(body, options.fault_begin, options.fault_seconds)
    generator = LoadGenerator(options.url, options.warehouse, options.users, options.pace, stop, options.json)
    answers = done = 0
    while not stop.is_set() and (options.rounds == 0 or done < options.rounds):
        answers += generator.run(options.seed + done, options.seconds, faults)
        done += 1
    if not answers and not stop.is_set():
        print(f"traffic: no answer: {options.url}. Start the shop, or use --url.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
