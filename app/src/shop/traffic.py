"""People who visit the shop: a bounded, seeded mix of requests, so that dashboards have life.

    python -m shop.traffic --url http://127.0.0.1:8000 --seconds 60 --users 4 --seed 1

It needs nothing but Python, so the file also runs by itself. The same seed gives the same visits;
what is not repeated is how long the shop takes to answer.
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
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

PRODUCTS = 12
# As with most shops, few products get most of the interest: the weights of a Zipf distribution.
_INTEREST = [1 / rank for rank in range(1, PRODUCTS + 1)]
_TIMEOUT_SECONDS = 10.0
_PROGRESS_SECONDS = 10.0
_RESTOCK_SECONDS = 20.0
_WAVE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Step:
    """One request: `path` may hold `{order}`, the id of the visitor's last order."""

    method: str
    route: str
    path: str
    think: float
    body: dict[str, object] | None = None
    form: bool = False


def visit(dice: random.Random) -> Iterator[Step]:
    """Yield what one visitor does, from the front page to leaving; `think` is in seconds.

    About a third of the visitors order, some mistype, and one in twenty follows a dead link.
    """

    def think(median: float) -> float:
        # Log-normal, as measured think times are; cut off so that a visit has an end.
        return min(max(dice.lognormvariate(math.log(median), 0.6), 0.05), 10.0)

    def product() -> int:
        return dice.choices(range(1, PRODUCTS + 1), _INTEREST)[0]

    yield Step("GET", "/", "/", think(1.5))
    if dice.random() < 0.05:
        yield Step("GET", "_unmatched", f"/offers/{dice.randrange(100)}", think(1.0))
    for _ in range(dice.choice((1, 1, 2, 2, 3, 5))):
        if dice.random() < 0.4:
            offset = dice.choice((0, 0, 6))
            yield Step("GET", "/products", f"/products?limit=6&offset={offset}", think(1.2))
        number = product() if dice.random() > 0.03 else 9999
        yield Step("GET", "/products/<int:product_id>", f"/products/{number}", think(2.0))
    if dice.random() < 0.35:
        # Now and then somebody asks for nothing, or for more than one may.
        quantity = dice.choice((1, 1, 1, 2, 3)) if dice.random() > 0.04 else dice.choice((0, 500))
        wanted: dict[str, object] = {"product_id": product(), "quantity": quantity}
        if dice.random() < 0.3:
            yield Step("POST", "/buy", "/buy", think(1.0), wanted, form=True)
        else:
            yield Step("POST", "/orders", "/orders", think(1.0), wanted)
            for _ in range(dice.choice((0, 1, 1, 2))):
                yield Step("GET", "/orders/<order_id>", "/orders/{order}", think(3.0))


@dataclass
class Record:
    """What happened so far. Safe to use from all visitors' threads."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    visits: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, step: Step, status: str, seconds: float) -> None:
        """Note one answer; `status` is its code, or `none` when there was no answer."""
        name = f"{step.method} {step.route}"
        with self._lock:
            self.seconds.setdefault(name, []).append(seconds)
            self.statuses.setdefault(name, Counter())[status] += 1

    def add_visit(self) -> None:
        """Note that a visitor has left."""
        with self._lock:
            self.visits += 1

    def totals(self) -> dict[str, Any]:
        """Return requests, failed ones (5xx or no answer) and quantiles in ms over all routes."""
        with self._lock:
            times = sorted(value for values in self.seconds.values() for value in values)
            codes = sum(self.statuses.values(), Counter())
        failed = sum(n for code, n in codes.items() if code == "none" or code.startswith("5"))
        return {
            "visits": self.visits,
            "requests": len(times),
            "failed": failed,
            "unanswered": codes["none"],
            "p50_ms": _quantile(times, 0.5),
            "p95_ms": _quantile(times, 0.95),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each route, those with most requests first."""
        with self._lock:
            found = [
                {
                    "request": name,
                    "requests": len(times),
                    "statuses": dict(sorted(self.statuses[name].items())),
                    "p50_ms": _quantile(sorted(times), 0.5),
                    "p95_ms": _quantile(sorted(times), 0.95),
                    "max_ms": _quantile(sorted(times), 1.0),
                }
                for name, times in self.seconds.items()
            ]
        return sorted(found, key=lambda row: -int(row["requests"]))


def _quantile(times: list[float], share: float) -> float:
    """Return the nearest-rank quantile in ms of sorted seconds; 0 without any."""
    if not times:
        return 0.0
    return round(times[max(math.ceil(share * len(times)) - 1, 0)] * 1000, 1)


class Client:
    """Keeps one connection to the server at `url` alive."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http(s) URL; use e.g. http://127.0.0.1:8000")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.hostname, parts.port, timeout=_TIMEOUT_SECONDS)
        self._prefix = parts.path.rstrip("/")

    def send(
        self, method: str, path: str, body: dict[str, object] | None = None, form: bool = False
    ) -> tuple[int, bytes]:
        """Return status and body; raises OSError or HTTPException when there is no answer."""
        # A key of its own for each order: running the same seed again orders again.
        headers = {"User-Agent": "vantage-traffic", "Accept": "text/html, application/json"}
        data = None
        if form:
            data = urlencode({**(body or {}), "key": uuid.uuid4().hex}).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif body is not None:
            data = json.dumps(body).encode()
            headers |= {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        try:
            self._connection.request(method, self._prefix + path, data, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            # The next request gets a new connection.
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next request would open a new one."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Faults that are switched on in the warehouse during a part of a round; times in seconds."""

    errors: float
    latency_ms: int
    begin: float
    seconds: float

    def body(self) -> dict[str, object]:
        """Return what `PUT /faults` takes."""
        return {"error_rate": self.errors, "latency_ms": self.latency_ms}


class Crowd:
    """`users` visitors at a time, for `seconds`."""

    def __init__(self, url: str, warehouse: str, users: int, pace: float, stop: threading.Event):
        Client(url)  # A wrong URL is said before anything starts.
        self._url, self._warehouse, self._users, self._pace = url, warehouse, users, pace
        self._stop = stop
        self.record = Record()

    def run(self, seed: int, seconds: float, trouble: Trouble | None, say: Reporter) -> Record:
        """Send visitors until the time is over or `stop` is set; return what happened."""
        self.record = Record()
        begin = time.monotonic()
        end = begin + seconds
        threads = [
            threading.Thread(target=self._visitor, args=(random.Random(f"{seed}/{n}"), begin, end))
            for n in range(self._users)
        ]
        if self._warehouse:
            threads.append(threading.Thread(target=self._clerk, args=(random.Random(seed), end)))
        for thread in threads:
            thread.start()
        switched = False
        next_report = begin + _PROGRESS_SECONDS
        try:
            while (now := time.monotonic()) < end and not self._stop.wait(min(0.2, end - now)):
                elapsed = now - begin
                wanted = trouble is not None and 0 <= elapsed - trouble.begin < trouble.seconds
                if trouble is not None and wanted != switched:
                    self._switch(trouble if wanted else None, say)
                    switched = wanted
                if now >= next_report:
                    say.progress(elapsed, seconds, self.record.totals())
                    next_report += _PROGRESS_SECONDS
        finally:
            # Whatever happens, no fault stays behind.
            if switched:
                self._switch(None, say)
            for thread in threads:
                thread.join(_TIMEOUT_SECONDS + 1)
        return self.record

    def _pause(self, seconds: float, begin: float, end: float) -> bool:
        """Wait as a visitor would; False when it is time to leave."""
        # The crowd is thicker at some times than at others.
        wave = 1 + 0.5 * math.sin(2 * math.pi * (time.monotonic() - begin) / _WAVE_SECONDS)
        left = end - time.monotonic()
        return left > 0 and not self._stop.wait(min(seconds * wave / self._pace, left))

    def _visitor(self, dice: random.Random, begin: float, end: float) -> None:
        with closing(Client(self._url)) as client:
            self._visits(client, dice, begin, end)

    def _visits(self, client: Client, dice: random.Random, begin: float, end: float) -> None:
        # Not all at once.
        going = self._pause(dice.uniform(0, 2), begin, end)
        while going:
            order = ""
            for step in visit(dice):
                if "{order}" in step.path and not order:
                    continue
                order = self._request(client, step, order)
                going = self._pause(step.think, begin, end)
                if not going:
                    return
            self.record.add_visit()
            going = self._pause(dice.uniform(0.5, 3), begin, end)

    def _request(self, client: Client, step: Step, order: str) -> str:
        """Send one request and return the id of the visitor's last order."""
        path = step.path.replace("{order}", order)
        started = time.perf_counter()
        try:
            status, body = client.send(step.method, path, step.body, step.form)
        except (OSError, http.client.HTTPException):
            self.record.add(step, "none", time.perf_counter() - started)
            return order
        self.record.add(step, str(status), time.perf_counter() - started)
        if step.path == "/orders" and status in (200, 201):
            return str(json.loads(body).get("id", ""))
        return order

    def _clerk(self, dice: random.Random, end: float) -> None:
        """Put back on the shelf what is sold, or a service would sell out in some weeks."""
        with closing(Client(self._warehouse)) as client:
            while not self._stop.wait(min(_RESTOCK_SECONDS, max(end - time.monotonic(), 0))):
                if time.monotonic() >= end:
                    return
                number = dice.choices(range(1, PRODUCTS + 1), _INTEREST)[0]
                route = "/products/<int:product_id>/restock"
                path = f"/products/{number}/restock"
                self._request(client, Step("POST", route, path, 0, {"quantity": 50}), "")

    def _switch(self, trouble: Trouble | None, say: Reporter) -> None:
        """Switch the warehouse's faults on or off."""
        try:
            with closing(Client(self._warehouse)) as client:
                if trouble is None:
                    status, answer = client.send("DELETE", "/faults")
                else:
                    status, answer = client.send("PUT", "/faults", trouble.body())
        except (OSError, ValueError, http.client.HTTPException) as error:
            status, answer = 0, str(error).encode()
        if status in (200, 204):
            say.note("faults off" if trouble is None else f"faults on: {answer.decode().strip()}")
        else:
            shown = answer.decode(errors="replace").strip()[:200]
            say.note(
                f"the faults could not be switched: {status or 'no answer'} {shown} "
                "Fix: name the warehouse with --warehouse, and let it run with SHOP_FAULTS=on."
            )


def not_the_shop(url: str) -> str:
    """Return what is wrong with a server that answers and is no shop; empty for the shop.

    Empty as well while nothing answers, or with an error of its own: a shop may be on its way up.
    """
    try:
        with closing(Client(url)) as client:
            status, body = client.send("GET", "/products?limit=1")
    except (OSError, http.client.HTTPException):
        return ""
    if status >= 500:
        return ""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict) and "items" in answer:
        return ""
    return (
        f"what answers at {url} is not the demo shop: GET /products gave {status}"
        f"{'' if status != 200 else ' and no list of products'}. Its visitors know no other app. "
        "Fix: name a shop with --url, or bring it back (site.yml without an app of your own); "
        "your own app wants requests of your own, for instance with curl. Nobody was sent."
    )


class Reporter:
    """Says how it goes: text for people, or one JSON object a line for the logs."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def _line(self, text: str, level: str = "info", **fields: Any) -> None:
        if self._as_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            text = json.dumps(
                {"timestamp": now, "level": level, "message": text, "service": "traffic"} | fields
            )
        print(text, flush=True)

    def note(self, text: str) -> None:
        """Say one thing."""
        self._line(text)

    def progress(self, elapsed: float, seconds: float, totals: dict[str, Any]) -> None:
        """Say how far it is."""
        self._line(
            f"{elapsed:5.0f} of {seconds:.0f} s  {totals['requests']:6d} requests  "
            f"{totals['requests'] / elapsed:5.1f}/s  {totals['failed']} failed  "
            f"p95 {totals['p95_ms']:g} ms",
            **totals,
        )

    def summary(self, record: Record, seconds: float) -> None:
        """Say what happened, by route."""
        totals = record.totals()
        requests, failed = totals["requests"], totals["failed"]
        head = (
            f"{totals['visits']} visits, {requests} requests in {seconds:.0f} s, "
            f"{failed} failed ({failed / requests if requests else 0:.1%})"
        )
        if self._as_json:
            self._line(head, **totals)
            return
        self._line(f"\n{head}\n")
        self._line(f"{'request':<42}{'count':>7}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}  answers")
        for row in record.rows():
            answers = " ".join(f"{code}:{n}" for code, n in row["statuses"].items())
            self._line(
                f"{row['request']:<42}{row['requests']:>7}{row['p50_ms']:>9g}{row['p95_ms']:>9g}"
                f"{row['max_ms']:>9g}  {answers}"
            )


def _number(low: float, high: float) -> Any:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low:g} to {high:g}")
        return value

    return read


def _whole(low: int, high: int) -> Any:
    def read(text: str) -> int:
        return int(_number(low, high)(str(int(text))))

    return read


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(prog="shop.traffic", description=(__doc__ or "").split("\n")[0])
    add = made.add_argument
    add("--url", default="http://127.0.0.1:8000", help="the storefront")
    add("--warehouse", default="", help="the warehouse; with it shelves are filled again")
    add("--seconds", type=_number(1, 86400), default=60.0, help="length of a round")
    add("--rounds", type=_whole(0, 10**6), default=1, help="rounds, 0 goes on until stopped")
    add("--users", type=_whole(1, 100), default=4, help="visitors at a time")
    add("--pace", type=_number(0.1, 20), default=1.0, help="2 lets them think half as long")
    add("--seed", type=_whole(0, 2**31 - 1), default=1, help="the same seed, the same visits")
    add("--errors", type=_number(0, 1), default=0.0, help="share of requests that faults fail")
    add("--latency", type=_whole(0, 10_000), default=0, help="latency that faults add, in ms")
    add("--fault-begin", type=_number(0, 86400), default=0.0, help="seconds before the faults")
    add("--fault-seconds", type=_number(1, 86400), default=86400.0, help="how long they stay on")
    add("--json", action="store_true", help="one JSON object a line")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the rounds; 0, or 1 when there is no shop, or 2 for a wrong argument."""
    options = parser().parse_args(argv)
    say = Reporter(options.json)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    trouble = None
    if options.errors or options.latency:
        trouble = Trouble(
            options.errors, options.latency, options.fault_begin, options.fault_seconds
        )
    try:
        crowd = Crowd(options.url, options.warehouse, options.users, options.pace, stop)
    except ValueError as error:
        print(f"traffic: {error}", file=sys.stderr)
        return 2
    if wrong := not_the_shop(options.url):
        print(f"traffic: {wrong}", file=sys.stderr)
        return 1
    done = 0
    reached = False
    while not stop.is_set() and (options.rounds == 0 or done < options.rounds):
        seed = options.seed + done
        say.note(
            f"{options.users} visitors at {options.url} for {options.seconds:g} s, seed {seed}"
        )
        begin = time.monotonic()
        record = crowd.run(seed, options.seconds, trouble, say)
        say.summary(record, time.monotonic() - begin)
        totals = record.totals()
        reached = reached or totals["requests"] > totals["unanswered"]
        done += 1
    if not reached and not stop.is_set():
        print(
            f"traffic: {options.url} never answered. Fix: bring the shop up or name it with --url.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
