#!/usr/bin/env python3
"""Sends one request to an app and finds this very request as log line, trace, metric and exemplar.

    follow_request.py '{"app": "blog", "url": "http://127.0.0.1:8000/", "prometheus": "http://127.0.0.1:9090", …}'

The argument is a `Settings` as JSON. Prints the seconds that each hop took; exits with 1 and the hops that failed, what they
asked and what answered. The request has an id of its own: as trace id (`traceparent`), in `X-Request-ID` and in
`User-Agent`, so that a line or a span of another request is never taken for it. An app that answers without X-Trace-Id does
not use flask_vantage: the table then shows which signals it gives, and only those in `signals` are required.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

UNITS = Path("/etc/systemd/system")
SIGNALS = ("log", "trace", "metric")
# How long an optional signal is looked for where no scrape can come: a batch of spans (5 s by default), or a line.
SPANS_SECONDS = 8
# What a scrape may come later than its interval says.
LATE_SCRAPE_SECONDS = 5
# What a count of spans takes longer than a scrape: a batch in the app, and Jaeger's flush of what it counted.
COUNTED_SPANS_SECONDS = 10
WINDOW_SECONDS = 600
# Why an optional signal may be missing.
MISSING = {
    "log": "no line of this request on standard output",
    "trace": "no span; flask_vantage gives spans, or `instrument: auto` for a source without Dockerfile",
    "metric": "no /metrics that is scraped, and no spans or access lines to count",
}
REQUESTS = "http_server_request_duration_seconds"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is the answer to this request; its target would be another request, perhaps of another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


# The stores are hosts of the inventory, never behind a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)


class Pending(Exception):
    """Not found yet; the text is the reason, if there is one."""


class Row(NamedTuple):
    """What was found at a hop after how many seconds; a hop that failed has a problem."""

    hop: str
    seconds: float
    found: str
    problem: str = ""


@dataclass
class Settings:
    """Where the stores are, which app gets the request, and what must be found."""

    prometheus: str
    loki: str
    jaeger: str
    alertmanager: str = ""
    """Empty: not asked whether alerts reach it."""
    grafana: str = ""
    """Empty: Grafana does not run."""
    grafana_password_file: str = "/etc/vantage/secrets/grafana/admin_password"
    app: str = ""
    url: str = ""
    """What the app is asked for; empty: no app runs, only the stores are asked."""
    host: str = ""
    """The app's host, as in Prometheus' label `host`."""
    is_local: bool = False
    """Whether the app has its unit on this host."""
    is_scraped: bool = True
    replicas: dict[str, str] = field(default_factory=dict)
    """The URL of each replica by its name, if there are several."""
    services: list[str] = field(default_factory=list)
    """Services that must have a span in the trace."""
    signals: list[str] = field(default_factory=list)
    """Signals that an app without X-Trace-Id must give."""
    logs_command: str = "journalctl -u vantage-SERVICE.service"
    scrape_interval: str = "15s"
    seconds: float = 60.0
    log_service: str = ""
    """Service of a line with this request's id that the caller logs. If set, only what must be there is looked for, with one
    request: no optional signal, no exemplar."""

    @property
    def scrape_seconds(self) -> float:
        units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
        return sum(float(n) * units[u] for n, u in re.findall(r"(\d+)(ms|s|m|h)", self.scrape_interval)) or 15.0


class Answer(NamedTuple):
    status: int
    trace_id: str
    """Empty without the header X-Trace-Id."""
    location: str = ""
    content_type: str = ""
    text: str = ""
    """The beginning of the body of a server error."""


def fetch(url: str, headers: dict[str, str] | None = None, **parameters: Any) -> Any:
    """The JSON that a URL answers; raises OSError or ValueError."""
    if parameters:
        url += "?" + urllib.parse.urlencode(parameters)
    with OPENER.open(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
        return json.loads(response.read())


def send_request(url: str, headers: dict[str, str] | None = None) -> Answer:
    """An app's answer, whatever its status; raises OSError if there is none."""
    text = ""
    try:
        with OPENER.open(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
            status, found = response.status, response.headers
    except urllib.error.HTTPError as error:
        with error:
            status, found = error.code, error.headers
            if status >= 500:
                text = error.read(300).decode(errors="replace")
    trace_id, location, kind = (str(found.get(name) or "") for name in ("X-Trace-Id", "Location", "Content-Type"))
    return Answer(status, trace_id, location, kind, text)


def attempt(find: Callable[[], str]) -> tuple[str, str]:
    """What a search found, and the error that prevented it from finding anything."""
    try:
        return find(), ""
    except urllib.error.HTTPError as error:
        return "", f"{error.url} answered {error.code}: {error.read(300).decode(errors='replace')}"
    except (Pending, ValueError) as error:
        return "", str(error)
    except (OSError, KeyError, IndexError, http.client.HTTPException) as error:
        return "", f"{type(error).__name__}: {error}"


def plural(count: float, noun: str) -> str:
    return f"{count:.0f} {noun}{'' if count == 1 else 's'}"


class Counter:
    """A count in Prometheus that must grow by the requests that are sent, found in a scrape after the last of them."""

    def __init__(self, query: Callable[[str], list[dict[str, Any]]], selector: str, target: str) -> None:
        self.query, self.selector, self.target = query, selector, target
        self.before = self.read(selector)

    def read(self, expression: str) -> dict[str, float]:
        """The sums by status, which is empty where the series do not tell."""
        found = self.query(f"sum by (http_response_status_code) ({expression})")
        return {
            str(series["metric"].get("http_response_status_code", "")): float(series["value"][1]) for series in found
        }

    def added(self, status: int, since: float) -> float:
        """How many requests with this status were counted by a scrape after `since`; below 0 after a restart."""
        # The oldest scrape decides: replicas are scraped at different times.
        found = self.read(f"{self.selector} and on () (min(timestamp(up{{{self.target}}})) > {since:.3f})")
        keys = [key for key in found if key in {"", str(status)}]
        total = sum(found[key] - self.before.get(key, 0.0) for key in keys)
        if total < 0:
            # The app was restarted or its series expired: count from here.
            self.before = found
        return total


class Verification:
    """One request on its way through the stores; `rows` are what was found at each hop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rows: list[Row] = []
        self.id = secrets.token_hex(16)
        self.trace_ids: list[str] = []
        self.status = 0
        self.sent_at = 0.0
        self.resend_at = 0.0
        self.counters: dict[str, Counter] = {}
        self.has_trace = False
        self.has_line = False

    # Looking for something until it is there ------------------------------------------------------------------------

    def look(self, find: Callable[[], str], limit: Callable[[], float]) -> tuple[float, str, str]:
        """Repeats a search until it finds something or takes too long: seconds, what it found, and the last problem."""
        begin, pause = time.monotonic(), 0.1
        while True:
            found, problem = attempt(find)
            took = time.monotonic() - begin
            if found or took > limit():
                return took, found, problem
            time.sleep(pause)
            # Quick at first, because the seconds are shown; later each search is work for a store.
            pause = min(1.0, pause * 1.2)

    def hop(self, name: str, find: Callable[[], str], missing: str, hint: str) -> Row:
        """The row of something that must be found."""
        seconds = self.settings.seconds
        if name == "metric":
            # A scrape must come first, whatever its interval is.
            seconds = max(
                seconds,
                self.settings.scrape_seconds + LATE_SCRAPE_SECONDS + (0 if self.trace_ids else COUNTED_SPANS_SECONDS),
            )
        took, found, problem = self.look(find, lambda: seconds)
        if found:
            return Row(name, took, found)
        reason = f"{missing} within {seconds:.0f} s" + (f": {problem}" if problem else "")
        return Row(name, took, f"FAILED: {reason}", f"verify failed at hop '{name}': {reason}. {hint}")

    def option(self, name: str, find: Callable[[], str]) -> Row:
        """The row of something that an app may lack."""
        longest = self.settings.scrape_seconds + LATE_SCRAPE_SECONDS

        def limit() -> float:
            can_be_counted = name == "metric" and (self.settings.is_scraped or self.has_trace or self.has_line)
            extra = COUNTED_SPANS_SECONDS if self.has_trace and not self.settings.is_scraped else 0
            return min(self.settings.seconds, longest + extra if can_be_counted else SPANS_SECONDS)

        took, found, problem = self.look(find, limit)
        if name == "log" and not found:
            problem = problem or attempt(self.find_other_lines)[0]
        return Row(name, took, found or f"- ({problem or MISSING[name]})")

    def see(self, *services: str) -> str:
        """The hint where to read the logs of services."""
        commands = [self.settings.logs_command.replace("SERVICE", service) for service in services]
        return f"See {' and '.join(commands)}."

    # Sending --------------------------------------------------------------------------------------------------------

    def send(self) -> Answer:
        """Sends the request once more; every one has the same id."""
        # An instrumented app continues this trace.
        headers = {
            "traceparent": f"00-{self.id}-{secrets.token_hex(8)}-01",
            "X-Request-ID": f"verify-{self.id}",
            # In the access lines of gunicorn and others.
            "User-Agent": f"vantage-verify/{self.id}",
        }
        answer = send_request(self.settings.url, headers)
        self.status, self.sent_at = answer.status, time.time()
        if answer.trace_id and answer.trace_id not in self.trace_ids:
            self.trace_ids.append(answer.trace_id)
        return answer

    def resend(self, interval: float) -> None:
        """Sends one more request if the last one is old enough."""
        if time.monotonic() >= self.resend_at:
            self.resend_at = time.monotonic() + interval
            self.send()

    # Searches: what was found, or an empty text -----------------------------------------------------------------------

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        return list(fetch(f"{self.settings.prometheus}/api/v1/query", query=query)["data"]["result"])

    def find_prometheus(self) -> str:
        """Counts the requests so far: only a count that grows is that of this request."""
        app = f'service_name="{self.settings.app}"'
        own = f'__name__=~"(?i).*request.*(_total|_count)", __name__!~"{REQUESTS}_count|promhttp_.*|promtail_.*"'
        selectors = {
            "requests": (f'{REQUESTS}_count{{{app}, http_request_method="GET"}}', app),
            "spans": (f'traces_span_metrics_calls_total{{{app}, span_kind="SPAN_KIND_SERVER"}}', 'job="span_metrics"'),
            "lines": (f"promtail_custom_http_server_requests_total{{{app}}}", 'job="promtail"'),
            "own": (f"{{{app}, {own}}}", app),
        }
        self.counters = {name: Counter(self.prometheus, *selector) for name, selector in selectors.items()}
        return "answers"

    def find_stores(self) -> str:
        fetch(f"{self.settings.loki}/loki/api/v1/labels")
        fetch(f"{self.settings.jaeger}/api/services")
        return "Loki and Jaeger answer"

    def find_alertmanager(self) -> str:
        """The alert that always fires has arrived, so others would."""
        alerts = fetch(f"{self.settings.alertmanager}/api/v2/alerts", filter='alertname="Watchdog"')
        return "has the alert Watchdog" if alerts else ""

    def find_app(self) -> str:
        answer = self.send()
        if answer.status >= 500:
            raise Pending(f"answered {answer.status}: {answer.text}")
        words = f", a redirect to {answer.location}" if answer.location else ""
        return f"trace {answer.trace_id}" if answer.trace_id else f"answers {answer.status} without a trace id{words}"

    def find_lines(self, service: str = "") -> str:
        """The lines that contain the id of this request."""
        service = service or self.settings.app
        count = self.count_lines(f'{{service_name="{service}"}} |~ "{"|".join([self.id, *self.trace_ids])}"')
        self.has_line |= count > 0
        return f"{plural(count, 'line')} of {service}" if count else ""

    def find_other_lines(self) -> str:
        """Lines of the app that prove nothing of this request, for the reader."""
        count = self.count_lines(f'{{service_name="{self.settings.app}"}}')
        return f"{plural(count, 'line')} in ten minutes, none with this request's id" if count else ""

    def count_lines(self, query: str) -> int:
        start = int((time.time() - WINDOW_SECONDS) * 1e9)
        answer = fetch(f"{self.settings.loki}/loki/api/v1/query_range", query=query, start=start, limit=1000)
        return sum(len(stream["values"]) for stream in answer["data"]["result"])

    def find_trace(self) -> str:
        """The trace of the first request, with spans of every service that must have some."""
        trace_id = self.trace_ids[0] if self.trace_ids else self.id
        try:
            traces = fetch(f"{self.settings.jaeger}/api/traces/{trace_id}")["data"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            raise
        spans = traces[0]["spans"] if traces else []
        found = {traces[0]["processes"][span["processID"]]["serviceName"] for span in spans}
        if not found or not set(self.settings.services) <= found:
            return ""
        self.has_trace = True
        return f"{plural(len(spans), 'span')} of {', '.join(sorted(found))}"

    def count(self, name: str) -> float:
        """How many requests a counter has gained since the first one."""
        added = self.counters[name].added(self.status, self.sent_at)
        if added <= 0:
            # The app may have been restarted and its counter with it: one more request tells.
            self.resend(self.settings.scrape_seconds + 2)
        return added

    def find_metric(self) -> str:
        if (added := self.count("requests")) > 0:
            return f"{plural(added, 'request')} counted"
        raise Pending(self.scrape_problem())

    def find_any_metric(self) -> str:
        """A count of requests that the app's own metrics, its spans or its access lines gained."""
        for source, words in (("spans", "its spans"), ("lines", "its access lines")):
            if (added := self.count(source)) > 0:
                return f"{plural(added, 'request')} counted from {words}"
        if not self.settings.is_scraped:
            return ""
        if self.count("own") > 0:
            return "counted by its own metrics"
        app, own = f'service_name="{self.settings.app}"', self.counters["own"]
        if not own.read(own.selector):
            # None of its metrics counts requests: a scrape after this one is all that there is to see.
            fresh = f"max(timestamp(up{{{app}}})) > {self.sent_at:.3f} and max(up{{{app}}}) == 1"
            series = self.prometheus(f'count({{{app}, __name__!~"up|scrape_.+|promtail_.+"}}) and on () ({fresh})')
            if series:
                return f"{series[0]['value'][1]} series, none of them counts requests"
        raise Pending(self.scrape_problem())

    def scrape_problem(self) -> str:
        """Why Prometheus could not scrape the app, in its own words, and what the app answers there."""
        settings = self.settings
        targets = fetch(f"{settings.prometheus}/api/v1/targets", state="active")["data"]["activeTargets"]
        for target in targets:
            if target["labels"].get("service_name") != settings.app or target.get("scrapePool", "apps") != "apps":
                continue
            if target.get("health") == "down" and target.get("lastError"):
                url = target["scrapeUrl"]
                return f"Prometheus cannot scrape {url}: {self.describe_answer(url)}{target['lastError']}"
        return ""

    def describe_answer(self, scrape_url: str) -> str:
        """What the app answers to a scrape: Prometheus follows a redirect and then names the page's content type alone."""
        base, path = urllib.parse.urlsplit(self.settings.url), urllib.parse.urlsplit(scrape_url).path
        try:
            answer = send_request(f"{base.scheme}://{base.netloc}{path}")
        except (OSError, http.client.HTTPException):
            return ""
        if answer.location:
            return f"answered {answer.status}, redirected to {answer.location}. "
        kind = answer.content_type.partition(";")[0]
        return (
            ""
            if answer.status == 200 and kind != "text/html"
            else f"answered {answer.status} with {kind or 'no type'}. "
        )

    def find_exemplar(self) -> str:
        # On a busy app another request may replace the exemplar before the scrape, so more are sent after the first one.
        self.resend(0.5)
        answer = fetch(
            f"{self.settings.prometheus}/api/v1/query_exemplars",
            query=f'{REQUESTS}_bucket{{service_name="{self.settings.app}"}}',
            start=time.time() - WINDOW_SECONDS,
            end=time.time() + 10,
        )
        found = {e["labels"].get("trace_id") for series in answer["data"] for e in series["exemplars"]}
        return "its trace id is on the histogram" if found.intersection(self.trace_ids) else ""

    def find_replicas(self) -> str:
        """Each replica answers, and Prometheus reaches as many on the app's host."""
        names = ", ".join(self.settings.replicas)
        for name, url in self.settings.replicas.items():
            try:
                answer = send_request(url)
            except (OSError, http.client.HTTPException) as error:
                raise ValueError(f"{name} at {url}: {error}") from error
            if answer.status >= 500:
                raise ValueError(f"{name} at {url}: answered {answer.status}")
        if not self.settings.is_scraped:
            return f"{names} answer"
        # Another host may run the same app.
        selector = f'job="apps", service_name="{self.settings.app}", host="{self.settings.host}"'
        reached = sorted(series["metric"]["instance"] for series in self.prometheus(f"up{{{selector}}} == 1"))
        if len(reached) != len(self.settings.replicas):
            raise ValueError(f"{names} answer, Prometheus reaches {', '.join(reached) or 'none'}")
        return f"{names} answer and are scraped"

    def find_data_sources(self) -> str:
        password = Path(self.settings.grafana_password_file).read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}"}
        sources = fetch(f"{self.settings.grafana}/api/datasources", headers)
        for source in sources:
            state = fetch(f"{self.settings.grafana}/api/datasources/uid/{source['uid']}/health", headers)
            if state.get("status") != "OK":
                raise ValueError(f"data source {source['name']} is {state}")
        names = [source["name"] for source in sources]
        return f"healthy: {', '.join(names)}" if len(names) >= 3 else ""

    # The way of the request -------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Fills `rows`; the problems of the hops that failed, in the order of the request's way."""
        settings = self.settings
        self.rows.append(self.hop("prometheus", self.find_prometheus, "no answer", self.see("prometheus")))
        jobs: list[Callable[[], Row]] = []
        if not settings.url:
            jobs += self.jobs_of_stores()
            jobs.append(partial(Row, "app", 0.0, "- (no app runs: log, trace and metric were omitted)"))
        elif self.check_app():
            jobs += self.jobs_of_app()
        if settings.url and settings.replicas:
            hint = self.see(*settings.replicas)
            jobs.append(partial(self.hop, "replicas", self.find_replicas, "not all replicas found", hint))
        if settings.grafana:
            few = "fewer than 3 healthy data sources"
            jobs.append(partial(self.hop, "grafana", self.find_data_sources, few, self.see("grafana")))
        if settings.alertmanager:
            hint = self.see("alertmanager", "prometheus")
            jobs.append(partial(self.hop, "alertmanager", self.find_alertmanager, "no alert Watchdog", hint))
        # All at once: a store that hangs must not hide what the others have.
        with ThreadPoolExecutor(len(jobs) or 1) as pool:
            self.rows += pool.map(lambda job: job(), jobs)
        return [row.problem for row in self.rows if row.problem]

    def check_app(self) -> bool:
        """Sends the request and adds the row of its answer."""
        settings = self.settings
        # Compose runs the services without units.
        units = {unit.name for unit in UNITS.glob("vantage-*.service")}
        if settings.is_local and units and f"vantage-{settings.app}.service" not in units:
            reason = f"this host has no app {settings.app}, which the settings name"
            fix = "Give verify the settings of site.yml (best in a file of the inventory's group_vars/all), or run site.yml."
            self.rows.append(Row("app", 0.0, f"FAILED: {reason}", f"verify failed at hop 'app': {reason}. {fix}"))
            return False
        hint = f"{self.see(settings.app)} verify_path sets another path."
        self.rows.append(self.hop("app", self.find_app, f"no answer of {settings.url}", hint))
        self.resend_at = time.monotonic() + settings.scrape_seconds + 1
        return not self.rows[-1].problem

    def jobs_of_stores(self, required: Sequence[str] = ()) -> list[Callable[[], Row]]:
        """The searches that need no request: those for signals that the app is not `required` to give."""
        jobs: list[Callable[[], Row]] = []
        if self.settings.log_service and "log" not in required:
            find = partial(self.find_lines, self.settings.log_service)
            jobs.append(partial(self.hop, "log", find, "no line of this check in Loki", self.see("promtail", "loki")))
        if "trace" not in required:
            jobs.append(partial(self.hop, "stores", self.find_stores, "no answer", self.see("loki", "jaeger")))
        return jobs

    def jobs_of_app(self) -> list[Callable[[], Row]]:
        """The searches for the request, in the order of their rows."""
        settings, uses_vantage = self.settings, bool(self.trace_ids)
        required = SIGNALS if uses_vantage else settings.signals
        no_id = (
            f"{settings.url} answered without X-Trace-Id. Does the app use flask_vantage, or the instrumentation that was "
            f"set? {self.see(settings.app)}"
        )
        services = ", ".join(settings.services) or settings.app
        log_hint = f"{self.see('promtail', 'loki')} Promtail's /targets shows what it reads."
        targets = "Prometheus' /targets shows what it scrapes and why it fails."
        find_metric = self.find_metric if uses_vantage else self.find_any_metric
        searches: dict[str, tuple[Callable[[], str], str, str]] = {
            "log": (self.find_lines, "no line of this request in Loki", log_hint),
            "trace": (self.find_trace, f"no trace in Jaeger with spans of {services}", self.see("jaeger")),
            "metric": (find_metric, "this request is not counted in Prometheus", targets),
        }
        jobs: list[Callable[[], Row]] = []
        for signal, (find, missing, hint) in searches.items():
            if signal == "metric" and not self.counters:
                jobs.append(partial(Row, signal, 0.0, "- (Prometheus does not answer)"))
            elif signal == "metric" and uses_vantage and not settings.is_scraped:
                jobs.append(partial(Row, signal, 0.0, "- (metrics: false)"))
            elif signal in required:
                jobs.append(partial(self.hop, signal, find, missing, hint if uses_vantage else no_id))
            elif not settings.log_service:
                jobs.append(partial(self.option, signal, find))
        if settings.log_service:
            jobs += self.jobs_of_stores(required)
        if uses_vantage and settings.is_scraped and self.counters and not settings.log_service:
            hint = "Is --enable-feature=exemplar-storage set, and does the app answer in OpenMetrics?"
            jobs.append(partial(self.hop, "exemplar", self.find_exemplar, "no exemplar in Prometheus", hint))
        return jobs


def main(argument: str) -> int:
    verification = Verification(Settings(**json.loads(argument)))
    problems = verification.run()
    print(f"{'hop':<12}{'seconds':>8}  found")
    for row in verification.rows:
        print(f"{row.hop:<12}{row.seconds:>8.2f}  {row.found}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
