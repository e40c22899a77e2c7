"""Asks Prometheus, Loki and Jaeger, in few rounds, and keeps each answer with the query that it answers.

What comes out is plain data, so that it can be stored, and analysed and drawn elsewhere and later:

    meta       when, which windows, where Grafana is
    engines    of each engine whether it answered, and why not
    metrics    name -> {query, at, series}; a name ends in @short, @long or @base where it is asked for that window
    logs       name -> {query, series} or {query, lines}
    traces     name -> list of traces, each a list of spans
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from vantage_report import queries
from vantage_report.asking import Answer, Question, Transport
from vantage_report.spans import compact

ENGINES = ("prometheus", "loki", "jaeger")
# Points of a plot; more than a picture's width can show would only cost.
POINTS = 72
STEP = 15
# Traces are looked at as a sample: the long window in slices, so that its beginning counts as much as its end.
SLICES = 24
PER_SLICE = 15
SAMPLE = 200
EXTREMES = 20
# A trace is complete when its last service has sent its spans; the newest seconds are left out.
SETTLE = 5
# Patterns whose first and last line are looked up: of the apps, and of everything else.
PATTERNS = (10, 6)
LINES = 200

Say = Callable[[str], None]


@dataclass(frozen=True)
class Windows:
    """Seconds of the two windows, when both end, and since when there is data in the long one (seconds since 1970)."""

    short: int
    long: int
    end: float
    since: float

    @property
    def base(self) -> int:
        """The long window without the short one: what it was like before."""
        return self.long - self.short

    def begin(self, name: str) -> float:
        """When a window begins."""
        return self.end - (self.short if name == "short" else self.long)


class NothingAnswers(Exception):
    """No engine could be asked."""


class Collector:
    """One report's questions and answers."""

    def __init__(self, transport: Transport, short: int, long: int, say: Say = lambda text: None) -> None:
        self._ask, self._say = transport, say
        self._short, self._long = short, long
        self._asked = self._lost = 0
        self.engines: dict[str, dict[str, Any]] = {name: {"ok": False, "error": "was not asked"} for name in ENGINES}
        self.metrics: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, dict[str, Any]] = {}
        self.traces: dict[str, list[Any]] = {}
        self.problems: list[str] = []

    def run(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Ask everything; raises `NothingAnswers`."""
        self._find_engines()
        self._step("metrics", self._collect_metrics, "prometheus")
        self._step("logs", self._collect_logs, "loki")
        self._step("traces", self._collect_traces, "jaeger")
        return {
            "meta": meta | asdict(self.windows),
            "engines": self.engines,
            "metrics": self.metrics,
            "logs": self.logs,
            "traces": self.traces,
            "problems": self.problems,
        }

    def _find_engines(self) -> None:
        questions = [
            # The host's clock, which all three stores go by, may differ from this machine's.
            Question("time", "prometheus", "/api/v1/query", (("query", "time()"),)),
            Question("oldest", "prometheus", "/api/v1/query", (("query", queries.oldest(self._long)),)),
            Question("labels", "loki", "/loki/api/v1/labels"),
            Question("services", "jaeger", "/api/services"),
        ]
        answers = self._ask(questions)
        end = time.time()
        for question, answer in zip(questions, answers, strict=True):
            if question.name != "oldest":
                self.engines[question.engine] = {"ok": "body" in answer, "error": answer.get("error", "")}
        if not any(engine["ok"] for engine in self.engines.values()):
            reasons = "; ".join(f"{name}: {engine['error']}" for name, engine in self.engines.items())
            raise NothingAnswers(f"None of Prometheus, Loki and Jaeger answers ({reasons}).")
        oldest = 0.0
        if self.engines["prometheus"]["ok"]:
            end = float(answers[0]["body"]["data"]["result"][0])
            series = answers[1].get("body", {}).get("data", {}).get("result") or []
            oldest = min((float(one["value"][1]) for one in series), default=0.0)
        self.windows = Windows(self._short, self._long, end, max(oldest, end - self._long))
        traced = answers[3]["body"].get("data") or [] if self.engines["jaeger"]["ok"] else []
        # Jaeger traces the questions that it is asked.
        self.services = sorted(set(traced) - {"jaeger"})
        there = [name for name, engine in self.engines.items() if engine["ok"]]
        missing = "".join(f"; {name} does not: {self.engines[name]['error']}" for name in ENGINES if name not in there)
        self._say(f"{', '.join(there)} answer{missing}" if len(there) > 1 else f"{there[0]} answers{missing}")

    def _step(self, what: str, collect: Callable[[], str], engine: str) -> None:
        if not self.engines[engine]["ok"]:
            return
        begin, self._asked, self._lost = time.monotonic(), 0, 0
        found = collect()
        lost = f", {self._lost} without an answer" if self._lost else ""
        self._say(f"{what}: {found} from {self._asked} queries{lost}, {time.monotonic() - begin:.1f} s")

    def _answers(self, questions: list[Question]) -> Iterable[tuple[Question, Answer]]:
        """The answers that came; what did not is noted as a problem."""
        self._asked += len(questions)
        for question, answer in zip(questions, self._ask(questions) if questions else [], strict=True):
            if "body" in answer:
                yield question, answer
            else:
                self._lost += 1
                self.problems.append(f"{question.engine} did not answer the query “{question.name}”: {answer['error']}")

    # Prometheus

    def _collect_metrics(self) -> str:
        windows, asked = self.windows, {}
        wanted: list[tuple[str, str, float]] = [
            (name, query, windows.end) for name, query in queries.at_end(windows.short, windows.long).items()
        ]
        for window, seconds, at in (
            ("short", windows.short, windows.end),
            ("long", windows.long, windows.end),
            ("base", windows.base, windows.end - windows.short),
        ):
            wanted += [(f"{name}@{window}", query, at) for name, query in queries.over_window(seconds).items()]
        for name, query, at in wanted:
            asked[name] = (query, {"at": at})
        questions = [
            Question(name, "prometheus", "/api/v1/query", (("query", query), ("time", f"{more['at']:.3f}")))
            for name, (query, more) in asked.items()
        ]
        for window in ("short", "long"):
            # A machine that is half an hour old gets its half hour in full detail.
            covered = windows.end - max(windows.begin(window), windows.since)
            step = max(STEP, round(covered / POINTS))
            rate = max(60, step)
            for name, query in queries.over_time(rate).items():
                key = f"{name}~{window}"
                asked[key] = (query, {"step": step})
                times = (("start", f"{windows.begin(window):.3f}"), ("end", f"{windows.end:.3f}"), ("step", str(step)))
                questions.append(Question(key, "prometheus", "/api/v1/query_range", (("query", query), *times)))
        questions.append(Question("alerts", "prometheus", "/api/v1/alerts"))
        series = 0
        for question, answer in self._answers(questions):
            data = answer["body"].get("data") or {}
            if question.name == "alerts":
                self.metrics["alerts"] = {"query": 'ALERTS{alertstate="firing"}', "alerts": data.get("alerts") or []}
                continue
            query, more = asked[question.name]
            result = data.get("result") or []
            series += len(result)
            self.metrics[question.name] = {"query": query, "series": result, **more}
        return f"{series} series"

    def apps(self) -> list[str]:
        """Services that serve requests: what has request metrics, or else spans."""
        found = {s["metric"].get("service_name", "") for s in self.metrics.get("requests@long", {}).get("series", [])}
        up = self.metrics.get("up", {}).get("series", [])
        found |= {s["metric"].get("service_name", "") for s in up if s["metric"].get("job") == "apps"}
        return sorted((found | set(self.services)) - {""})

    # Loki

    def _range(self, name: str, query: str, window: str, limit: int, direction: str = "backward") -> Question:
        begin, end = self.windows.begin(window), self.windows.end
        return Question(
            name, "loki", "/loki/api/v1/query_range",
            (
                ("query", query), ("start", str(int(begin * 1e9))), ("end", str(int(end * 1e9))),
                ("limit", str(limit)), ("direction", direction),
            ),
        )  # fmt: skip

    def _instant(self, name: str, query: str, at: float) -> Question:
        return Question(name, "loki", "/loki/api/v1/query", (("query", query), ("time", str(int(at * 1e9)))))

    def _collect_logs(self) -> str:
        windows, apps = self.windows, self.apps()
        before = windows.end - windows.short
        questions = [
            self._instant("volume@short", queries.volume(windows.short), windows.end),
            self._instant("volume@long", queries.volume(windows.long), windows.end),
            self._instant("patterns@short", queries.patterns(windows.short), windows.end),
            self._instant("patterns@base", queries.patterns(windows.base), before),
        ]
        if apps:
            selector = queries.of_services(apps)
            failed = f"{selector} | json | http_response_status_code >= 500"
            questions += [
                self._instant("clients@short", queries.clients(apps, windows.short), windows.end),
                self._instant("clients@base", queries.clients(apps, windows.base), before),
                self._range("raw", selector, "short", LINES),
                self._range("failed", failed, "long", LINES),
            ]
        for question, answer in self._answers(questions):
            parameters = dict(question.parameters)
            self.logs[question.name] = {"query": parameters["query"], **_log_answer(answer)}
        self._examples()
        lines = sum(float(series["value"][1]) for series in self.logs.get("volume@long", {}).get("series", []))
        return f"{lines:,.0f} lines counted"

    def _examples(self) -> None:
        """The first and the last line of the patterns that were said most, of apps before engines."""
        found: Counter[tuple[str, str, str]] = Counter()
        for name in ("patterns@short", "patterns@base"):
            for series in self.logs.get(name, {}).get("series", []):
                labels = series["metric"]
                key = (labels.get("service_name", ""), labels.get("level", ""), labels.get("said", ""))
                found[key] += round(float(series["value"][1]))
        apps = set(self.apps())
        often = sorted(found, key=lambda key: -found[key])
        ranked = [key for key in often if key[0] in apps][: PATTERNS[0]]
        ranked += [key for key in often if key[0] not in apps][: PATTERNS[1]]
        questions = []
        for place, key in enumerate(ranked):
            query = queries.pattern_examples(*key)
            for which, direction in (("first", "forward"), ("last", "backward")):
                questions.append(self._range(f"{which}#{place}", query, "long", 1, direction))
        for question, answer in self._answers(questions):
            query = dict(question.parameters)["query"]
            which, _, number = question.name.partition("#")
            key = ranked[int(number)]
            entry = self.logs.setdefault(
                "examples", {"query": query, "patterns": {}}
            )["patterns"].setdefault(json.dumps(key), {"query": query})  # fmt: skip
            entry[which] = _log_answer(answer)["lines"][:1]

    # Jaeger

    def _search(self, name: str, service: str, begin: float, end: float, limit: int, **more: str) -> Question:
        return Question(
            name, "jaeger", "/api/traces",
            (
                ("service", service), ("start", str(int(begin * 1e6))), ("end", str(int(end * 1e6))),
                ("limit", str(limit)), *more.items(),
            ),
        )  # fmt: skip

    def _collect_traces(self) -> str:
        windows = self.windows
        end = windows.end - SETTLE
        services = self.services
        per_service = max(1, len(services))
        questions = []
        for service in services:
            short = windows.begin("short")
            questions.append(self._search("short", service, short, end, SAMPLE // per_service))
            begin = max(windows.since, windows.begin("long"))
            covered = max(windows.end - windows.short - begin, 1.0)
            slices = min(SLICES, max(1, round(covered / 60)))
            width = covered / slices
            for number in range(slices):
                start = begin + number * width
                limit = max(4, PER_SLICE * SLICES // slices // per_service)
                questions.append(self._search("base", service, start, start + width, limit))
            for window in ("short", "long"):
                since = windows.begin(window)
                # A caller's span is an error at 404 as well, so failures are also looked for by their status.
                for tags in ('{"error":"true"}', *self._failures(service, window)):
                    questions.append(self._search(f"failed@{window}", service, since, end, EXTREMES, tags=tags))
                slow = self._slow(service, window)
                if slow:
                    duration = f"{int(slow * 1e6)}us"
                    questions.append(
                        self._search(f"slow@{window}", service, since, end, EXTREMES, minDuration=duration)
                    )
        kept: dict[str, dict[str, list[Any]]] = {}
        for question, answer in self._answers(questions):
            for trace in answer["body"].get("data") or []:
                spans = compact(trace)
                if spans:
                    kept.setdefault(question.name, {})[trace["traceID"]] = spans
        self.traces = {name: list(traces.values()) for name, traces in kept.items()}
        ids = {trace_id for traces in kept.values() for trace_id in traces}
        self.traces["named"] = self._named(ids)
        return f"{len(ids)} traces of {', '.join(services) or 'no service'}"

    def _named(self, have: set[str]) -> list[Any]:
        """The traces that the example lines name, where the sample does not have them."""
        wanted = set()
        for entry in self.logs.get("examples", {}).get("patterns", {}).values():
            for _, _, labels in entry.get("last", []):
                wanted |= {labels.get("trace_id", "")}
        wanted -= have | {""}
        questions = [Question("example", "jaeger", f"/api/traces/{trace_id}") for trace_id in sorted(wanted)]
        found = []
        # A trace that was dropped, or is older than the retention, is rightly not there.
        for answer in self._ask(questions) if questions else []:
            found += [compact(trace) for trace in answer.get("body", {}).get("data") or []]
        return found

    def _failures(self, service: str, window: str) -> list[str]:
        """The tags of the failures (5xx) that the service's metrics count."""
        statuses = {
            series["metric"].get("http_response_status_code", "")
            for series in self.metrics.get(f"requests@{window}", {}).get("series", [])
            if series["metric"].get("service_name") == service
        }
        return [json.dumps({"http.response.status_code": s}) for s in sorted(statuses) if s.startswith("5")]

    def _slow(self, service: str, window: str) -> float:
        """Seconds that one request in a hundred took longer than, or 0 where nothing is known."""
        from vantage_report.stats import Histogram

        series = self.metrics.get(f"buckets@{window}", {}).get("series", [])
        of_service = [s for s in series if s["metric"].get("service_name") == service]
        return Histogram.of(of_service).quantile(0.99) or 0.0


def _log_answer(answer: Answer) -> dict[str, Any]:
    """Series of a counting query, or lines as (nanoseconds, line, labels), newest first."""
    data = answer["body"]["data"]
    if data["resultType"] != "streams":
        return {"series": data["result"]}
    lines = [
        (int(nanoseconds), line, _labels(stream["stream"]))
        for stream in data["result"]
        for nanoseconds, line in stream["values"]
    ]
    return {"lines": sorted(lines, key=lambda entry: -entry[0])}


def _labels(stream: dict[str, str]) -> dict[str, str]:
    # A stack trace is in the line already.
    return {name: value for name, value in stream.items() if len(value) < 300}
