#!/usr/bin/python3
"""Asks Prometheus, Loki and Jaeger on this host for the data of a report and writes it as gzipped JSON.

It runs on the monitoring host with the host's Python (3.9 or later, standard library only). It only reads. The data:

    meta       the end and lengths of the time ranges, the host's name, the address of Grafana
    engines    for each engine: {ok, error}
    metrics    name -> {query, series}; a name ends in @short, @long or @base for that range, in ~short or ~long for a plot
    logs       name -> {query, series} or {query, lines}
    traces     name -> list of traces, each a list of spans
    problems   queries that got no answer

The range `base` is the long range without the short one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
MIN_SHORT_SECONDS = 30
# The engines, with what their query APIs' paths begin with.
ENGINES = {"prometheus": "/api/v1", "loki": "/loki/api/v1", "jaeger": "/api"}
QUERY_TIMEOUT_SECONDS = 20
PARALLEL_QUERIES = 4

PLOT_POINTS = 72
MIN_STEP_SECONDS = 15
# The long range is sampled in slices, so that its beginning counts as much as its end.
MAX_SLICES = 24
TRACES_PER_SLICE = 15
SHORT_RANGE_TRACES = 200
MAX_EXTREME_TRACES = 20
# The newest seconds are left out: a trace is complete when its last service has sent its spans.
SPAN_DELAY_SECONDS = 5
MAX_LOG_LINES = 200
# Patterns whose first and last line are looked up: of apps, and of everything else.
APP_PATTERNS, OTHER_PATTERNS = 10, 6
MAX_LABEL_LENGTH = 300

# -- PromQL over raw counters, so that a report needs no recording rules except those of the SLOs and limits.
# $w is the length of the time range, $rate that of a plot's rates.

REQUESTS = "http_server_request_duration_seconds_count"
BUCKETS = "http_server_request_duration_seconds_bucket"
ROUTE = "service_name, http_request_method, http_route"
# What an app without metrics of its own serves, as Jaeger counts it from the spans; its histogram is in milliseconds.
# Its name begins with the method; the rest is a route, or a raw path of an app that does not know better.
SERVER = 'span_kind="SPAN_KIND_SERVER", span_name=~"[A-Z_]+( .*)?", service_name!="jaeger"'
SPAN_REQUESTS = f"traces_span_metrics_calls_total{{{SERVER}}}"
SPAN_BUCKETS = f"traces_span_metrics_duration_milliseconds_bucket{{{SERVER}}}"
# What an app without metrics and spans serves, as Promtail counts it from its access lines, which name no route.
LINE_REQUESTS = "promtail_custom_http_server_requests_total"
LINE_BUCKETS = "promtail_custom_http_server_request_duration_seconds_bucket"
CALL = '{span_kind="SPAN_KIND_CLIENT", server_address!=""}'
RATE = f"sum by (service_name) (rate({REQUESTS}[$rate]))"
SPAN_RATE = f"sum by (service_name) (rate({SPAN_REQUESTS}[$rate]))"
MEMORY = "process_resident_memory_bytes / on (service_name) group_left () service_name:memory_limit:bytes"


def increase(metric: str, by: str) -> str:
    """Return the query for the growth of a counter, series born within the range included.

    PromQL's increase() ignores the first value of a new series, such as the first error of a status. A series that was
    not there in the hour before is counted from zero, unless a restart made it smaller than what it grew by.
    """
    born = f"({metric} unless last_over_time({metric}[1h] offset $w))"
    return f"sum by ({by}) ({born} > increase({metric}[$w]) or increase({metric}[$w]) or {born})"


def rate_by_status(digit: int) -> str:
    """Return the query for a plot of the requests whose status begins with a digit, by service."""
    status = f'http_response_status_code=~"{digit}.."'
    spans = f"rate({SPAN_REQUESTS.replace('}', f', {status}}}')}[$rate])"
    if digit == 5:
        failed = 'http_response_status_code="", status_code="STATUS_CODE_ERROR"'
        spans += f" or rate({SPAN_REQUESTS.replace('}', f', {failed}}}')}[$rate])"
    return (
        f"sum by (service_name) (rate({REQUESTS}{{{status}}}[$rate])) "
        f"or (sum by (service_name) ({spans}) unless on (service_name) {RATE}) "
        f"or (sum by (service_name) (rate({LINE_REQUESTS}{{{status}}}[$rate])) "
        f"unless on (service_name) ({RATE} or {SPAN_RATE}))"
    )


def quantile(ratio: float, function: str) -> str:
    """Return the query for a latency quantile by service, in seconds; `function` is rate or increase with its range."""
    name, _, over = function.partition("[")

    def of(buckets: str) -> str:
        return f"histogram_quantile({ratio}, sum by (service_name, le) ({name}({buckets}[{over})))"

    return f"{of(BUCKETS)} or on (service_name) {of(SPAN_BUCKETS)} / 1000 or on (service_name) {of(LINE_BUCKETS)}"


def of_spans(metric: str, by: str) -> str:
    """Return the query for the growth of a metric of spans, with the labels of flask_vantage's metrics."""
    query = increase(metric, f"service_name, span_name, http_route, {by}")
    query = f'label_replace({query}, "http_request_method", "$1", "span_name", "([A-Z_]+).*")'
    query = f'label_replace({query}, "http_route", "_unmatched", "http_route", "")'
    # A failed span without a status, such as that of a broken connection.
    query = f'label_join({query}, "outcome", "", "http_response_status_code", "status_code")'
    return f'label_replace({query}, "http_response_status_code", "500", "outcome", "STATUS_CODE_ERROR")'


def of_lines(metric: str, by: str) -> str:
    """Return the query for the growth of a metric of access lines, with the labels of flask_vantage's metrics."""
    query = increase(metric, f"service_name, http_request_method, {by}")
    return f'label_replace({query}, "http_route", "_unknown", "", "")'


MEASURED = f"({increase(REQUESTS, 'service_name')} or {increase(SPAN_REQUESTS, 'service_name')})"

# Asked at the end of each time range.
OVER_WINDOW = {
    "requests": f"{increase(REQUESTS, f'{ROUTE}, http_response_status_code')} or on (service_name) "
    + of_spans(SPAN_REQUESTS, "http_response_status_code, status_code")
    + f" or on (service_name) {of_lines(LINE_REQUESTS, 'http_response_status_code')}",
    "buckets": f"{increase(BUCKETS, f'{ROUTE}, le')} or ({of_lines(LINE_BUCKETS, 'le')} unless on (service_name) {MEASURED})",
    "span_buckets": f"{of_spans(SPAN_BUCKETS, 'le')} unless on (service_name) {increase(REQUESTS, 'service_name')}",
    "calls": increase(f"traces_span_metrics_calls_total{CALL}", "service_name, server_address, status_code"),
    "call_ms": increase(f"traces_span_metrics_duration_milliseconds_sum{CALL}", "service_name, server_address"),
    "starts": "max by (service_name, instance) (changes(process_start_time_seconds[$w]))",
    "auto_restarts": 'sum by (name) (increase(node_systemd_service_restart_total{name=~"vantage-.+"}[$w])) > 0',
    "spans_dropped": "sum by (service_name, reason) (increase(vantage_spans_dropped_total[$w])) > 0",
    "jaeger_refused": "sum (increase(otelcol_exporter_send_failed_spans_total[$w])) > 0 "
    "or sum (increase(otelcol_receiver_refused_spans_total[$w])) > 0",
    "lines_dropped": "sum by (service_name, reason) (increase(promtail_dropped_entries_total[$w])) > 0 "
    "or sum by (service_name, reason) (increase(loki_discarded_samples_total[$w])) > 0 "
    "or sum by (service_name) (increase(vantage_log_lines_dropped_total[$w])) > 0",
    "up_share": "avg by (service_name, job, instance) (avg_over_time(up[$w]))",
    "p99": quantile(0.99, "increase[$w]"),
}
# Asked once, over the long range ($w) or the short one ($short).
AT_END = {
    "up": "up",
    "last_up": "max by (service_name, job, instance) (max_over_time((timestamp(up) and up == 1)[$w:15s]))",
    "first_seen": "min by (service_name) (min_over_time(timestamp(up)[$w:60s])) "
    f"or min by (service_name) (min_over_time(timestamp({SPAN_REQUESTS})[$w:60s])) "
    f"or min by (service_name) (min_over_time(timestamp({LINE_REQUESTS})[$w:60s]))",
    "memory": f"max by (service_name) (max_over_time(({MEMORY})[$short:15s]))",
    "disk_free": 'min by (device) (node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs"} / node_filesystem_size_bytes '
    "and node_filesystem_readonly == 0)",
    "slo": '{__name__=~"service_name:slo_.+"}',
}
# Asked for each point of a plot.
OVER_TIME = {
    "rate": f"{RATE} or on (service_name) {SPAN_RATE} "
    f"or on (service_name) sum by (service_name) (rate({LINE_REQUESTS}[$rate]))",
    "failed": rate_by_status(5),
    "refused": rate_by_status(4),
    **{f"p{percent}": quantile(percent / 100, "rate[$rate]") for percent in (50, 95, 99)},
}

# -- LogQL. A pattern is the exception or the message, with the numbers masked.

SAID = (
    "{{if .exception_type}}{{.exception_type}}: {{.exception_message}}{{else if .message}}{{.message}}"
    '{{else if .msg}}{{.msg}}{{else}}{{ regexReplaceAll "^.*?msg=" __line__ "" }}{{end}}'
)
MASKED = '{{ regexReplaceAll "[0-9a-fA-F]{8,}|[0-9]+" .said "#" | trunc 200 }}'
AS_PATTERN = f"| json | drop __error__, __error_details__ | label_format said=`{SAID}` | label_format said=`{MASKED}`"
NOT_INFO = '{level=~"error|critical|fatal|warn|warning"}'
PATTERNS = f"topk(40, sum by (service_name, level, said) (count_over_time({NOT_INFO} {AS_PATTERN} [$w])))"
VOLUME = 'sum by (service_name, level) (count_over_time({service_name=~".+"} [$w]))'
CLIENTS = (
    "topk(20, sum by (service_name, client_address) (count_over_time($apps "
    '| json client_address="client_address" | client_address != "" [$w])))'
)
FAILED_LINES = " | json | http_response_status_code >= 500"


def pattern_examples(service: str, level: str, said: str) -> str:
    """Return the query for the lines of one pattern."""
    # Backticks need no escape, but cannot hold a backtick.
    quoted = json.dumps(said, ensure_ascii=False) if "`" in said else f"`{said}`"
    return f'{{service_name="{service}", level="{level}"}} {AS_PATTERN} | said = {quoted}'


# -- HTTP

# The engines are on this host: a proxy of the environment is not for them.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Question:
    """One HTTP GET to one engine; `name` is the name of the answer in the data."""

    name: str
    engine: str
    path: str
    parameters: dict[str, str] = field(default_factory=dict)


# `body`, the JSON of the answer, or `error`.
Answer = dict[str, Any]
Transport = Callable[[Sequence[Question]], Sequence[Answer]]


def get(url: str) -> Answer:
    """Return the answer to one GET."""
    try:
        with OPENER.open(url, timeout=QUERY_TIMEOUT_SECONDS) as response:
            return {"body": json.load(response)}
    except urllib.error.HTTPError as error:
        with error:
            return {"error": f"HTTP {error.code}: {error.read(300).decode(errors='replace').strip()}"}
    except (OSError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {getattr(error, 'reason', error)}"}


def http_transport(addresses: dict[str, str]) -> Transport:
    """Return a transport that asks the engines at these addresses, some questions at a time."""

    def transport(questions: Sequence[Question]) -> Sequence[Answer]:
        urls = [f"{addresses[q.engine].rstrip('/')}{q.path}?{urlencode(q.parameters)}" for q in questions]
        with ThreadPoolExecutor(max_workers=PARALLEL_QUERIES) as pool:
            return list(pool.map(get, urls))

    return transport


# -- Collecting


class CollectError(Exception):
    """The data cannot be collected: why, and the fix."""


def log(text: str) -> None:
    """Print a line of progress."""
    print(f"report: {text}", flush=True)


class Collector:
    """The questions and answers of one report; `short` and `long` in seconds."""

    def __init__(self, ask: Transport, short: int, long: int, log: Callable[[str], None] = log) -> None:
        self.ask, self.log = ask, log
        self.seconds = {"short": short, "long": long, "base": long - short}
        self.engines: dict[str, dict[str, Any]] = {}
        self.traced_services: list[str] = []
        self.metrics: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, dict[str, Any]] = {}
        self.traces: dict[str, list[Any]] = {}
        self.problems: list[str] = []

    def run(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return the data; raises CollectError when no engine answers."""
        self.find_engines()
        steps = {"prometheus": self.collect_metrics, "loki": self.collect_logs, "jaeger": self.collect_traces}
        for engine, collect in steps.items():
            if self.engines[engine]["ok"]:
                start, problems = time.monotonic(), len(self.problems)
                found = collect()
                lost = len(self.problems) - problems
                missing = f", {lost} queries without an answer" if lost else ""
                self.log(f"{found}{missing}, {time.monotonic() - start:.1f} s")
        times = {"short": self.seconds["short"], "long": self.seconds["long"], "end": self.end, "since": self.since}
        names = ("engines", "metrics", "logs", "traces", "problems")
        return {"meta": {**meta, **times}, **{name: getattr(self, name) for name in names}}

    def find_engines(self) -> None:
        """Find out which engines answer, the host's time, the oldest sample and the traced services."""
        oldest = f"min(min_over_time(timestamp(up)[{self.seconds['long']}s:60s]))"
        questions = [
            # The clock of the stores may differ from that of the machine that runs this.
            Question("time", "prometheus", "/api/v1/query", {"query": "time()"}),
            Question("labels", "loki", "/loki/api/v1/labels"),
            Question("services", "jaeger", "/api/services"),
            Question("oldest", "prometheus", "/api/v1/query", {"query": oldest}),
        ]
        clock, _, services, first = answers = self.ask(questions)
        for question, answer in zip(questions[:3], answers):  # noqa: B905  # Python 3.9
            self.engines[question.engine] = {"ok": "body" in answer, "error": answer.get("error", "")}
        missing = [f"{name}: {engine['error']}" for name, engine in self.engines.items() if not engine["ok"]]
        for text in missing:
            self.log(f"no answer from {text}")
        if len(missing) == len(ENGINES):
            raise CollectError(f"no engine answers: {'; '.join(missing)}. Start the stack; `make status` shows it.")
        self.end = float(clock["body"]["data"]["result"][0]) if "body" in clock else time.time()
        begin = self.end - self.seconds["long"]
        # When each range begins and ends.
        self.ranges = {"long": (begin, self.end)}
        self.ranges["base"] = (begin, self.end - self.seconds["short"])
        self.ranges["short"] = (self.end - self.seconds["short"], self.end)
        series = first.get("body", {}).get("data", {}).get("result") or []
        self.since = max([begin, *(float(one["value"][1]) for one in series)])
        # Jaeger traces the queries that it answers.
        self.traced_services = sorted(set(services.get("body", {}).get("data") or []) - {"jaeger"})

    def at_end(self, engine: str, name: str, query: str, window: str, apps: str = "") -> Question:
        """Return the question for the values at the end of a range, whose length stands for $w."""
        for key, value in {"w": f"{self.seconds[window]}s", "short": f"{self.seconds['short']}s", "apps": apps}.items():
            query = query.replace(f"${key}", value)
        return Question(
            name, engine, f"{ENGINES[engine]}/query", {"query": query, "time": f"{self.ranges[window][1]:.3f}"}
        )

    def over_range(self, engine: str, name: str, query: str, window: str, **more: str) -> Question:
        """Return the question for each point, or the lines, of a range."""
        begin, end = self.ranges[window]
        parameters = {"query": query, "start": f"{begin:.3f}", "end": f"{end:.3f}", **more}
        return Question(name, engine, f"{ENGINES[engine]}/query_range", parameters)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Any]]:
        """Yield the questions that were answered, with the JSON; the others are recorded as problems."""
        for question, answer in zip(questions, self.ask(questions) if questions else []):  # noqa: B905  # Python 3.9
            if "body" in answer:
                yield question, answer["body"]
            else:
                self.problems.append(f"{question.engine} did not answer the query `{question.name}`: {answer['error']}")

    def collect_metrics(self) -> str:
        """Ask Prometheus everything; return a summary."""
        questions = [self.at_end("prometheus", name, query, "long") for name, query in AT_END.items()]
        for window in self.ranges:
            questions += [self.at_end("prometheus", f"{name}@{window}", q, window) for name, q in OVER_WINDOW.items()]
        for window in ("short", "long"):
            # Data of half an hour is shown in full detail.
            step = max(MIN_STEP_SECONDS, round((self.end - max(self.ranges[window][0], self.since)) / PLOT_POINTS))
            for name, query in OVER_TIME.items():
                query = query.replace("$rate", f"{max(60, step)}s")
                questions.append(self.over_range("prometheus", f"{name}~{window}", query, window, step=str(step)))
        questions.append(Question("alerts", "prometheus", "/api/v1/alerts"))
        for question, body in self.answers(questions):
            data, asked = body.get("data") or {}, question.parameters
            if question.name == "alerts":
                self.metrics["alerts"] = {"query": 'ALERTS{alertstate="firing"}', "alerts": data.get("alerts") or []}
                continue
            step_of = {"step": int(asked["step"])} if "step" in asked else {}
            self.metrics[question.name] = {"query": asked["query"], "series": data.get("result") or [], **step_of}
        series = sum(len(entry.get("series", [])) for entry in self.metrics.values())
        return f"metrics: {series} series from {len(questions)} queries"

    def series(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series of a metric, or of a count of lines."""
        entry = self.metrics.get(name) or self.logs.get(name) or {}
        return [(one["metric"], float(one["value"][1])) for one in entry.get("series", [])]

    def collect_logs(self) -> str:
        """Ask Loki everything; return a summary."""
        # The services that serve requests: those with request metrics or spans.
        found = {labels.get("service_name", "") for labels, _ in self.series("requests@long")}
        found |= {labels.get("service_name", "") for labels, _ in self.series("up") if labels.get("job") == "apps"}
        apps = sorted((found | set(self.traced_services)) - {""})
        of_apps = f'{{service_name=~"{"|".join(apps)}"}}'
        counts = {"volume@short": VOLUME, "volume@long": VOLUME, "patterns@short": PATTERNS, "patterns@base": PATTERNS}
        counts.update({"clients@short": CLIENTS, "clients@base": CLIENTS} if apps else {})
        questions = [
            self.at_end("loki", name, query, name.partition("@")[2], apps=of_apps) for name, query in counts.items()
        ]
        if apps:
            for name, query, window in (("raw", of_apps, "short"), ("failed", of_apps + FAILED_LINES, "long")):
                questions.append(self.over_range("loki", name, query, window, limit=str(MAX_LOG_LINES)))
        for question, body in self.answers(questions):
            self.logs[question.name] = {"query": question.parameters["query"], **read_log_answer(body)}
        self.collect_pattern_examples(apps)
        lines = sum(number for _, number in self.series("volume@long"))
        return f"logs: {lines:,.0f} lines counted by {len(questions)} queries"

    def collect_pattern_examples(self, apps: Sequence[str]) -> None:
        """Ask for the first and the last line of the most frequent patterns, of apps before engines."""
        found: Counter[tuple[str, str, str]] = Counter()
        for labels, number in self.series("patterns@short") + self.series("patterns@base"):
            service, level, said = (labels.get(label, "") for label in ("service_name", "level", "said"))
            found[service, level, said] += round(number)
        ranked = [key for key, _ in found.most_common()]
        keys = [key for key in ranked if key[0] in apps][:APP_PATTERNS]
        keys += [key for key in ranked if key[0] not in apps][:OTHER_PATTERNS]
        if not keys:
            return
        examples: dict[str, Any] = {}
        self.logs["examples"] = {"query": pattern_examples(*keys[0]), "patterns": examples}
        questions = [
            self.over_range("loki", f"{which}#{place}", pattern_examples(*key), "long", limit="1", direction=direction)
            for place, key in enumerate(keys)
            for which, direction in (("first", "forward"), ("last", "backward"))
        ]
        for question, body in self.answers(questions):
            which, _, place = question.name.partition("#")
            entry = examples.setdefault(json.dumps(keys[int(place)]), {"query": question.parameters["query"]})
            entry[which] = read_log_answer(body)["lines"][:1]

    def collect_traces(self) -> str:
        """Ask Jaeger everything; return a summary."""
        questions = [question for service in self.traced_services for question in self.trace_searches(service)]
        kept: dict[str, dict[str, list[Any]]] = {}
        for question, body in self.answers(questions):
            for trace in body.get("data") or []:
                spans = read_spans(trace)
                if spans:
                    kept.setdefault(question.name, {})[trace["traceID"]] = spans
        self.traces = {name: list(traces.values()) for name, traces in kept.items()}
        ids = {trace_id for traces in kept.values() for trace_id in traces}
        # The traces of the example lines that the searches did not find.
        patterns = self.logs.get("examples", {}).get("patterns", {}).values()
        named = {labels.get("trace_id", "") for entry in patterns for _, _, labels in entry.get("last", [])}
        missing = [Question("example", "jaeger", f"/api/traces/{one}") for one in sorted(named - ids - {""})]
        # A trace that was not sampled, or is older than the retention, is not an error.
        answers = self.ask(missing) if missing else []
        found = [trace for answer in answers for trace in answer.get("body", {}).get("data") or []]
        self.traces["named"] = [read_spans(trace) for trace in found]
        return f"traces: {len(ids)} from {len(questions)} queries"

    def trace_searches(self, service: str) -> Iterator[Question]:
        """Yield the questions for a sample of a service's traces, its failures and its slowest requests."""

        def search(name: str, begin: float, end: float, limit: int, **more: str) -> Question:
            times = {"start": str(int(begin * 1e6)), "end": str(int(end * 1e6))}
            return Question(name, "jaeger", "/api/traces", {"service": service, **times, "limit": str(limit), **more})

        services, end = len(self.traced_services), self.end - SPAN_DELAY_SECONDS
        begins = {window: self.ranges[window][0] for window in ("short", "long")}
        yield search("short", begins["short"], end, SHORT_RANGE_TRACES // services)
        begin = max(self.since, begins["long"])
        covered = max(begins["short"] - begin, 1.0)
        slices = min(MAX_SLICES, max(1, round(covered / 60)))
        limit = max(4, TRACES_PER_SLICE * MAX_SLICES // slices // services)
        for number in range(slices):
            start = begin + number * covered / slices
            yield search("base", start, start + covered / slices, limit)
        for window, begin in begins.items():
            # A caller's span is an error at 404 as well, so failures are also searched by status.
            statuses = {
                labels.get("http_response_status_code", "")
                for labels, _ in self.series(f"requests@{window}")
                if labels["service_name"] == service
            }
            failed = [{"http.response.status_code": status} for status in sorted(statuses) if status.startswith("5")]
            for tags in ({"error": "true"}, *failed):
                with_tags = json.dumps(tags, separators=(",", ":"))
                yield search(f"failed@{window}", begin, end, MAX_EXTREME_TRACES, tags=with_tags)
            for labels, p99 in self.series(f"p99@{window}"):
                if labels.get("service_name") == service and p99 > 0:
                    yield search(f"slow@{window}", begin, end, MAX_EXTREME_TRACES, minDuration=f"{int(p99 * 1e6)}us")


def read_log_answer(body: Any) -> dict[str, Any]:
    """Return the series of a count, or lines as (nanoseconds, line, labels), newest first."""
    data = body["data"]
    if data["resultType"] != "streams":
        return {"series": data["result"]}
    lines = []
    for stream in data["result"]:
        # A stack trace is in the line already.
        labels = {name: value for name, value in stream["stream"].items() if len(value) < MAX_LABEL_LENGTH}
        lines += [(int(nanoseconds), line, labels) for nanoseconds, line in stream["values"]]
    return {"lines": sorted(lines, key=lambda entry: -entry[0])}


# Tags that say what a span did.
SPAN_TAGS = (
    *("http.route", "http.request.method", "http.response.status_code", "url.full", "url.path", "server.address"),
    *("db.system", "db.system.name", "db.operation.name", "db.collection.name"),
    *("error.type", "client.address", "otel.status_description"),
)


def read_spans(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the spans of one trace of Jaeger's API in a compact form; times in microseconds."""
    services = {key: process["serviceName"] for key, process in (trace.get("processes") or {}).items()}
    found = []
    for span in trace.get("spans") or []:
        tags = {tag["key"]: tag["value"] for tag in span.get("tags") or []}
        parents = [one["spanID"] for one in span.get("references") or [] if one["refType"] == "CHILD_OF"]
        found.append({
            "trace": span["traceID"],
            "id": span["spanID"],
            "parent": parents[0] if parents else "",
            "service": services.get(span["processID"], "?"),
            "name": span["operationName"],
            "start": span["startTime"],
            "us": span["duration"],
            "kind": tags.get("span.kind", "internal"),
            "error": str(tags.get("error", "")).lower() == "true" or tags.get("otel.status_code") == "ERROR",
            "tags": {key: str(tags[key])[:MAX_LABEL_LENGTH] for key in SPAN_TAGS if key in tags},
        })  # fmt: skip
    return found


# -- The program


def parse_duration(text: str) -> int:
    """Return the seconds of 300, 300s, 5m, 6h or 1d; raises CollectError."""
    found = re.fullmatch(r"(\d+)([smhd]?)", text.strip())
    if not found or int(found[1]) == 0:
        raise CollectError(f"invalid duration: {text!r} (a number with s, m, h or d). Set for example 90s, 5m or 6h.")
    return int(found[1]) * UNIT_SECONDS[found[2]]


def parse_time_ranges(short: str, long: str) -> tuple[int, int]:
    """Return both time ranges in seconds; raises CollectError."""
    short_seconds, long_seconds = parse_duration(short), parse_duration(long)
    if short_seconds < MIN_SHORT_SECONDS:
        raise CollectError(f"short range is too short: {short} ({MIN_SHORT_SECONDS}s or more). Set report_short=1m.")
    if long_seconds < 2 * short_seconds:
        raise CollectError(f"long range is too short: {long} (at least twice the short one, {short}). Set report_long.")
    return short_seconds, long_seconds


def main(argv: list[str] | None = None) -> int:
    """Collect and write the data; return 1 with the reason on stderr when that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--loki", default="http://127.0.0.1:3100", metavar="URL")
    parser.add_argument("--jaeger", default="http://127.0.0.1:16686", metavar="URL")
    parser.add_argument("--grafana", default="", help="address of Grafana for links; default: no links", metavar="URL")
    parser.add_argument("--host", default="", help="name of the host, for the title")
    parser.add_argument("--short", default="5m", help="the range that the report is about (default: 5m)")
    parser.add_argument("--long", default="6h", help="the range that it is compared with (default: 6h)")
    parser.add_argument("--out", type=Path, default=Path("data.json.gz"), help="default: data.json.gz")
    options = parser.parse_args(argv)
    try:
        short, long = parse_time_ranges(options.short, options.long)
        transport = http_transport({name: getattr(options, name) for name in ENGINES})
        data = Collector(transport, short, long).run({"grafana": options.grafana, "host": options.host})
        # Log lines can hold what only root may read.
        options.out.touch(mode=0o600)
        options.out.write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))
    except (CollectError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
