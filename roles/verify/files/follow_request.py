#!/usr/bin/env python3
"""Sends one request to an app and finds it as log line, trace, metric and exemplar.

    follow_request.py '{"app": "blog", "url": "http://127.0.0.1:8000/", "prometheus": "http://127.0.0.1:9090", …}'

The argument is a `Settings` as JSON. Prints the seconds that each hop took; exits with 1 and the hop that failed, what it
asked and what answered. An app that answers without X-Trace-Id does not use flask_vantage: the table then shows which
signals it gives, and only those in `signals` are required.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNITS = Path("/etc/systemd/system")
# The stores are hosts of the inventory, never behind a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SIGNALS = ("log", "trace", "metric")
# How long an optional signal is looked for: up to a scrape (15 s by default), or a batch of spans (5 s by default) where
# no scrape can come.
SCRAPE_SECONDS, SPANS_SECONDS = 20, 8
WINDOW_SECONDS = 600
# Why an optional signal may be missing.
MISSING = {
    "log": "no line on standard output within ten minutes",
    "trace": "no span; flask_vantage gives spans, or `instrument: auto` for a source without Dockerfile",
    "metric": "no /metrics that is scraped, and no spans to count",
}


class HopError(Exception):
    """The request was not found at a hop; the text is what the operator reads."""


@dataclass
class Settings:
    """Where the stores are, which app gets the request, and what must be found."""

    prometheus: str
    loki: str
    jaeger: str
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
    seconds: float = 60.0


def fetch(url: str, headers: dict[str, str] | None = None, **parameters: Any) -> Any:
    """The JSON that a URL answers; raises OSError or ValueError."""
    if parameters:
        url += "?" + urllib.parse.urlencode(parameters)
    with OPENER.open(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
        return json.loads(response.read())


def send_request(url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """The status of an app's answer and its trace id, if any; raises OSError, also for a server error."""
    try:
        with OPENER.open(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
            return response.status, response.headers.get("X-Trace-Id") or ""
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise
        with error:
            return error.code, error.headers.get("X-Trace-Id") or ""


def attempt(find: Callable[[], str]) -> tuple[str, str]:
    """What a search found, and the error that prevented it from finding anything."""
    try:
        return find(), ""
    except urllib.error.HTTPError as error:
        return "", f"{error.url} answered {error.code}: {error.read(300).decode(errors='replace')}"
    except (OSError, ValueError, KeyError, IndexError) as error:
        return "", f"{type(error).__name__}: {error}"


def plural(count: float, noun: str) -> str:
    return f"{count:.0f} {noun}{'' if count == 1 else 's'}"


class Verification:
    """One request on its way through the stores; `rows` are hop, seconds and what was found."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rows: list[tuple[str, float, str]] = []
        self.trace_ids: set[str] = set()
        self.requests_before = 0.0
        self.resend_at = 0.0

    def hop(self, name: str, find: Callable[[], str], missing: str, hint: str) -> None:
        """Repeats a search until it finds something; raises HopError when it takes too long."""
        begin = time.monotonic()
        while True:
            found, problem = attempt(find)
            took = time.monotonic() - begin
            if found:
                self.rows.append((name, took, found))
                return
            if took > self.settings.seconds:
                reason = f"{missing} within {self.settings.seconds:.0f} s" + (f": {problem}" if problem else "")
                raise HopError(f"verify failed at hop '{name}': {reason}. {hint}")
            time.sleep(0.1)

    def see(self, *services: str) -> str:
        """The hint where to read the logs of services."""
        commands = [self.settings.logs_command.replace("SERVICE", service) for service in services]
        return f"See {' and '.join(commands)}."

    # Searches: what was found, or an empty text -----------------------------------------------------------------------

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        return list(fetch(f"{self.settings.prometheus}/api/v1/query", query=query)["data"]["result"])

    def count_requests(self) -> float:
        query = f'sum(http_server_request_duration_seconds_count{{service_name="{self.settings.app}"}})'
        return sum(float(series["value"][1]) for series in self.prometheus(query))

    def find_prometheus(self) -> str:
        self.requests_before = self.count_requests()
        return "answers"

    def find_stores(self) -> str:
        fetch(f"{self.settings.loki}/loki/api/v1/labels")
        fetch(f"{self.settings.jaeger}/api/services")
        return "Loki and Jaeger answer"

    def find_app(self) -> str:
        status, trace_id = send_request(self.settings.url)
        if not trace_id:
            return f"answers {status} without a trace id"
        self.trace_ids.add(trace_id)
        return f"trace {trace_id}"

    def find_lines(self, line_filter: str = "") -> str:
        answer = fetch(
            f"{self.settings.loki}/loki/api/v1/query_range",
            query=f'{{service_name="{self.settings.app}"}}{line_filter}',
            start=int((time.time() - WINDOW_SECONDS) * 1e9),
            limit=1000,
        )
        count = sum(len(stream["values"]) for stream in answer["data"]["result"])
        return f"{count} line(s) of {self.settings.app}" if count else ""

    def find_trace(self, trace_id: str, services: list[str]) -> str:
        try:
            traces = fetch(f"{self.settings.jaeger}/api/traces/{trace_id}")["data"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            raise
        spans = traces[0]["spans"] if traces else []
        found = {traces[0]["processes"][span["processID"]]["serviceName"] for span in spans}
        return f"{plural(len(spans), 'span')} of {', '.join(sorted(found))}" if found and set(services) <= found else ""

    def find_other_traces(self) -> str:
        """Traces of an app that does not continue the caller's; they prove nothing where spans are required."""
        traces = fetch(f"{self.settings.jaeger}/api/traces", service=self.settings.app, lookback="10m", limit=20)[
            "data"
        ]
        return f"{len(traces)} in ten minutes, none of this request" if traces else ""

    def find_metric(self) -> str:
        count = self.count_requests()
        # The app's counter may have restarted and be smaller, or just as large as before: one more request tells.
        if count and count != self.requests_before:
            return f"{plural(count, 'request')} counted"
        self.resend(17)
        return ""

    def find_exemplar(self) -> str:
        # On a busy app another request may replace the exemplar before the scrape, so more are sent after the first one.
        self.resend(0.5)
        answer = fetch(
            f"{self.settings.prometheus}/api/v1/query_exemplars",
            query=f'http_server_request_duration_seconds_bucket{{service_name="{self.settings.app}"}}',
            start=time.time() - WINDOW_SECONDS,
            end=time.time() + 10,
        )
        found = {e["labels"].get("trace_id") for series in answer["data"] for e in series["exemplars"]}
        return "its trace id is on the histogram" if found & self.trace_ids else ""

    def resend(self, interval: float) -> None:
        """Sends one more request if the last one is old enough."""
        if time.monotonic() >= self.resend_at:
            self.trace_ids.add(send_request(self.settings.url)[1])
            self.resend_at = time.monotonic() + interval

    def find_any_metric(self) -> str:
        """Series of the app itself, or the calls that Jaeger counts from its spans."""
        app = self.settings.app
        if self.settings.is_scraped:
            # `up` is Prometheus' own and exists without an answer of the app.
            query = f'count({{service_name="{app}", __name__!="up"}}) and on() (max(up{{service_name="{app}"}}) == 1)'
            if found := self.prometheus(query):
                return f"{found[0]['value'][1]} series"
        calls = self.prometheus(f'sum(traces_span_metrics_calls_total{{service_name="{app}"}})')
        return (
            f"{plural(float(calls[0]['value'][1]), 'call')} counted from its spans, no series of its own"
            if calls
            else ""
        )

    def find_replicas(self) -> str:
        """Each replica answers, and Prometheus reaches as many on the app's host."""
        names = ", ".join(self.settings.replicas)
        for name, url in self.settings.replicas.items():
            try:
                send_request(url)
            except OSError as error:
                raise ValueError(f"{name} at {url}: {error}") from error
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

    def run(self) -> None:
        """Fills `rows`; raises HopError at the hop that failed."""
        settings = self.settings
        self.hop("prometheus", self.find_prometheus, "no answer", self.see("prometheus"))
        if not settings.url:
            self.hop("stores", self.find_stores, "no answer", self.see("loki", "jaeger"))
            self.rows.append(("app", 0.0, "- (no app runs: log, trace and metric were omitted)"))
        else:
            self.follow()
            if settings.replicas:
                self.hop("replicas", self.find_replicas, "not all replicas found", self.see(*settings.replicas))
        if settings.grafana:
            self.hop("grafana", self.find_data_sources, "fewer than 3 healthy data sources", self.see("grafana"))

    def follow(self) -> None:
        """Sends the request and looks for it in every store."""
        settings = self.settings
        # Compose runs the services without units.
        units = {unit.name for unit in UNITS.glob("vantage-*.service")}
        if settings.is_local and units and f"vantage-{settings.app}.service" not in units:
            raise HopError(
                f"verify failed at hop 'app': this host has no app {settings.app}, which the settings name. Give verify the "
                "settings of site.yml (best in a file of the inventory's group_vars/all), or run site.yml."
            )
        hint = f"{self.see(settings.app)} verify_path sets another path."
        self.hop("app", self.find_app, f"no answer of {settings.url}", hint)
        if not self.trace_ids:
            self.find_signals()
            return
        (trace_id,) = self.trace_ids
        line = f" | trace_id = `{trace_id}`"
        hint = f"{self.see('promtail', 'loki')} Promtail's /targets shows what it reads."
        self.hop("log", lambda: self.find_lines(line), "no line in Loki", hint)
        missing = f"no trace in Jaeger with spans of {', '.join(settings.services)}"
        self.hop("trace", lambda: self.find_trace(trace_id, settings.services), missing, self.see("jaeger"))
        if not settings.is_scraped:
            self.rows.append(("metric", 0.0, "- (metrics: false)"))
            return
        self.resend_at = time.monotonic() + 17
        hint = "Prometheus' /targets shows what it scrapes and why it fails."
        self.hop("metric", self.find_metric, "no request counted in Prometheus", hint)
        self.resend_at = time.monotonic() + 16
        hint = "Is --enable-feature=exemplar-storage set, and does the app answer in OpenMetrics?"
        self.hop("exemplar", self.find_exemplar, "no exemplar in Prometheus", hint)

    def find_signals(self) -> None:
        """Adds a row for each signal of an app without X-Trace-Id; raises HopError if a required one is missing."""
        settings, sent = self.settings, secrets.token_hex(16)
        # An instrumented app continues this trace. An answer of 500 has a trace as well.
        context = {"traceparent": f"00-{sent}-{secrets.token_hex(8)}-01"}
        attempt(lambda: str(send_request(settings.url, context)))
        finds: dict[str, Callable[[], str]] = {
            "log": self.find_lines,
            "trace": lambda: self.find_trace(sent, []),
            "metric": self.find_any_metric,
        }
        hint = (
            f"{settings.url} answered without X-Trace-Id. Does the app use flask_vantage, or the instrumentation that was "
            f"set? {self.see(settings.app)}"
        )
        earlier, begin, took = len(self.rows), time.monotonic(), 0.0
        for signal in settings.signals:
            self.hop(signal, finds[signal], MISSING[signal], hint)
        missing = {signal: "" for signal in SIGNALS if signal not in settings.signals}
        while missing:
            took = time.monotonic() - begin
            for signal in list(missing):
                found, missing[signal] = attempt(finds[signal])
                if found:
                    del missing[signal]
                    self.rows.append((signal, took, found))
            can_be_counted = settings.is_scraped or "trace" not in missing
            if took > SPANS_SECONDS and not can_be_counted:
                # The spans of an app that begins its own traces may still be counted.
                can_be_counted = bool(attempt(self.find_other_traces)[0])
            if took > min(settings.seconds, SCRAPE_SECONDS if can_be_counted else SPANS_SECONDS):
                break
            time.sleep(0.3)
        if "trace" in missing and (found := attempt(self.find_other_traces)[0]):
            del missing["trace"]
            self.rows.append(("trace", took, found))
        self.rows += [(signal, took, f"- ({error or MISSING[signal]})") for signal, error in missing.items()]
        self.rows[earlier:] = sorted(self.rows[earlier:], key=lambda row: SIGNALS.index(row[0]))


def main(argument: str) -> int:
    verification, problem = Verification(Settings(**json.loads(argument))), ""
    try:
        verification.run()
    except HopError as error:
        problem = str(error)
    print(f"{'hop':<12}{'seconds':>8}  found")
    for name, seconds, found in verification.rows:
        print(f"{name:<12}{seconds:>8.2f}  {found}")
    if problem:
        print(problem, file=sys.stderr)
    return bool(problem)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
