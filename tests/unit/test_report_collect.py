"""The queries of the report, missing answers, and the role that runs them."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import collect
import programs
import pytest
from collect import (
    Answer,
    CollectError,
    Collector,
    Question,
    get,
    http_transport,
    main,
    parse_duration,
    parse_time_ranges,
)
from report_data import END
from vantage_tools.paths import ROOT

TRACE = {
    "traceID": "ab" * 16,
    "processes": {"p1": {"serviceName": "shop"}},
    "spans": [
        {
            "traceID": "ab" * 16, "spanID": "1", "processID": "p1", "operationName": "GET /", "references": [],
            "startTime": 1, "duration": 5, "logs": [],
            "tags": [{"key": "span.kind", "value": "server"}, {"key": "error", "value": True}, {"key": "secret", "value": "x"}],
        }
    ],
}  # fmt: skip


def answer_of(kind: str, result: list[Any]) -> Answer:
    return {"body": {"data": {"resultType": kind, "result": result}}}


class Engines:
    """A transport that answers like the three engines; `broken` ones refuse."""

    def __init__(self, *broken: str) -> None:
        self.broken, self.rounds = broken, 0
        self.asked: list[Question] = []

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        self.rounds += 1
        self.asked += questions
        return [self.answer(question) for question in questions]

    def answer(self, question: Question) -> Answer:
        if question.engine in self.broken:
            return {"error": "Connection refused"}
        bodies: dict[str, Any] = {
            "/api/v1/query": {"data": {"resultType": "vector", "result": []}},
            "/api/v1/query_range": {"data": {"resultType": "matrix", "result": []}},
            "/api/v1/alerts": {"data": {"alerts": []}},
            "/loki/api/v1/labels": {"data": []},
            "/loki/api/v1/query": {"data": {"resultType": "vector", "result": []}},
            "/loki/api/v1/query_range": {"data": {"resultType": "streams", "result": []}},
            "/api/services": {"data": ["shop", "jaeger"]},
            "/api/traces": {"data": [TRACE]},
        }
        if question.name == "time":
            return answer_of("scalar", [END, str(END)])
        if question.name == "patterns@short":
            labels = {"service_name": "shop", "level": "error", "said": "it `broke` at #"}
            return answer_of("vector", [{"metric": labels, "value": [END, "3"]}])
        if question.name.startswith(("first#", "last#")):
            stream = {"service_name": "shop", "trace_id": "cd" * 16}
            return answer_of("streams", [{"stream": stream, "values": [["5", "it broke"]]}])
        if question.path.startswith("/api/traces/"):
            return {"error": "HTTP 404: trace not found"}
        return {"body": bodies[question.path]}


def test_queries_are_sent_in_few_batches() -> None:
    engines = Engines()
    logged: list[str] = []
    data = Collector(engines, 300, 21_600, logged.append).run({"host": "vm"})
    assert engines.rounds <= 6
    assert data["meta"] == {"host": "vm", "short": 300, "long": 21_600, "end": END, "since": END - 21_600}
    assert data["problems"] == []
    assert [line.split(":")[0] for line in logged] == ["metrics", "logs", "traces"]
    json.dumps(data)


def test_times_come_from_the_clock_of_the_stores() -> None:
    engines = Engines()
    Collector(engines, 300, 21_600).run({})
    asked = {question.name: question.parameters for question in engines.asked}
    assert asked["requests@short"]["time"] == f"{END:.3f}"
    assert asked["requests@base"]["time"] == f"{END - 300:.3f}"
    assert "[21300s]" in asked["requests@base"]["query"]
    assert asked["rate~long"]["start"] == f"{END - 21_600:.3f}"


def test_traces_of_jaeger_are_ignored_and_spans_keep_only_useful_tags() -> None:
    engines = Engines()
    data = Collector(engines, 300, 21_600).run({})
    searched = {q.parameters["service"] for q in engines.asked if q.path == "/api/traces"}
    assert searched == {"shop"}
    (span,) = data["traces"]["short"][0]
    assert (span["service"], span["error"], span["tags"]) == ("shop", True, {})


def test_an_example_trace_that_is_missing_is_no_problem() -> None:
    engines = Engines()
    data = Collector(engines, 300, 21_600).run({})
    assert any(question.path == f"/api/traces/{'cd' * 16}" for question in engines.asked)
    assert data["problems"] == []
    (entry,) = data["logs"]["examples"]["patterns"].values()
    assert entry["last"] == [(5, "it broke", {"service_name": "shop", "trace_id": "cd" * 16})]
    # A backtick in the text must not end the query's string.
    assert entry["query"].endswith('said = "it `broke` at #"')


def test_slow_traces_are_those_beyond_the_99th_percentile() -> None:
    class Slow(Engines):
        def answer(self, question: Question) -> Answer:
            if question.name == "p99@short":
                series = [{"metric": {"service_name": "shop"}, "value": [END, "0.25"]}]
                return answer_of("vector", series)
            if question.name == "p99@long":
                series = [{"metric": {"service_name": "shop"}, "value": [END, "NaN"]}]
                return answer_of("vector", series)
            return super().answer(question)

    engines = Slow()
    Collector(engines, 300, 21_600).run({})
    searches = {q.name: q.parameters.get("minDuration") for q in engines.asked if q.name.startswith("slow@")}
    assert searches == {"slow@short": "250000us"}


def test_failures_are_searched_by_error_and_by_status() -> None:
    class Failing(Engines):
        def answer(self, question: Question) -> Answer:
            if question.name != "requests@short":
                return super().answer(question)
            labels = [{"service_name": "shop", "http_response_status_code": status} for status in ("200", "502")]
            series = [{"metric": one, "value": [END, "5"]} for one in labels]
            return answer_of("vector", series)

    engines = Failing()
    Collector(engines, 300, 21_600).run({})
    tags = [json.loads(q.parameters["tags"]) for q in engines.asked if q.name == "failed@short"]
    assert tags == [{"error": "true"}, {"http.response.status_code": "502"}]


@pytest.mark.parametrize("broken", ["prometheus", "loki", "jaeger"])
def test_one_engine_without_an_answer_leaves_the_others(broken: str) -> None:
    engines = Engines(broken)
    data = Collector(engines, 300, 21_600).run({})
    assert data["engines"][broken] == {"ok": False, "error": "Connection refused"}
    assert len([question for question in engines.asked if question.engine == broken]) <= 2
    assert bool(data["metrics"]) == (broken != "prometheus")
    assert bool(data["logs"]) == (broken != "loki")
    assert bool(data["traces"]) == (broken != "jaeger")


def test_no_answer_from_any_engine_is_an_error() -> None:
    with pytest.raises(CollectError, match="prometheus: Connection refused"):
        Collector(Engines("prometheus", "loki", "jaeger"), 300, 21_600).run({})


def test_a_query_that_fails_is_recorded_as_a_problem() -> None:
    class Slow(Engines):
        def answer(self, question: Question) -> Answer:
            return {"error": "timed out"} if question.name == "volume@long" else super().answer(question)

    logged: list[str] = []
    data = Collector(Slow(), 300, 21_600, logged.append).run({})
    (problem,) = data["problems"]
    assert all(part in problem for part in ("loki", "volume@long", "timed out"))
    assert "1 queries without an answer" in logged[1]


@contextmanager
def serve(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[int]:
    """A server that answers each GET by its path; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found.server_port
        found.shutdown()
        thread.join()


def test_answers_come_in_order_with_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    known = {"/json": (200, b"[1]"), "/html": (200, b"<p>")}
    with serve(lambda path: known.get(path.split("?")[0], (500, b"no disk"))) as port:
        ask = http_transport({"prometheus": f"http://127.0.0.1:{port}", "loki": "http://127.0.0.1:1"})
        answers = ask([Question("a", "prometheus", path, {"query": "a b"}) for path in ("/broken", "/json", "/html")])
    assert answers[0]["error"] == "HTTP 500: no disk"
    assert answers[1]["body"] == [1]
    assert "JSONDecodeError" in answers[2]["error"]
    assert "refused" in get("http://127.0.0.1:1/")["error"]


def test_durations_are_parsed() -> None:
    assert [parse_duration(text) for text in ("90", "90s", "5m", "6h", "1d")] == [90, 90, 300, 21_600, 86_400]
    assert parse_time_ranges("5m", "6h") == (300, 21_600)


@pytest.mark.parametrize(
    ("short", "long", "value"),
    [
        ("5 min", "6h", "5 min"), ("0m", "6h", "0m"), ("-5m", "6h", "-5m"), ("", "6h", "''"), ("5m", "9m", "9m"), ("10s", "6h", "10s"),
    ],
)  # fmt: skip
def test_impossible_time_ranges_are_refused(short: str, long: str, value: str) -> None:
    with pytest.raises(CollectError, match=value):
        parse_time_ranges(short, long)


def test_the_program_writes_nothing_without_an_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    engines = [
        argument for name in ("prometheus", "loki", "jaeger") for argument in (f"--{name}", "http://127.0.0.1:1")
    ]
    assert main([*engines, "--out", str(tmp_path / "data.json.gz")]) == 1
    assert "no engine answers" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- The role, against engines of the test


@pytest.fixture
def engines() -> Iterator[int]:
    """A server that answers for all three engines; its port."""
    known = Engines()

    def answer(path: str) -> tuple[int, bytes]:
        url = urlsplit(path)
        engine = "jaeger" if url.path.startswith(("/api/services", "/api/traces")) else "prometheus"
        name = "time" if dict(parse_qsl(url.query)).get("query") == "time()" else ""
        found = known.answer(Question(name, engine, url.path))
        return (200 if "body" in found else 404), json.dumps(found.get("body", {})).encode()

    with serve(answer) as port:
        yield port


def report(folder: Path, port: int, *arguments: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the playbook on this machine, with the report in a folder."""
    ports = {f"{name}_port": port for name in ("prometheus", "loki", "jaeger")}
    variables = {
        **ports, "report_dir": str(folder / "report"), "ansible_become": False, "__report_data": str(folder / "host-data.json.gz"),
    }  # fmt: skip
    hosts = {
        "monitoring": {"hosts": {"vm": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}
    }
    (folder / "hosts.yml").write_text(json.dumps(hosts))
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_NOCOLOR": "1",
        "PYTHONPATH": str(ROOT / "tools") if installed else str(folder),
    }  # fmt: skip
    if not installed:
        # Hides the package where it is installed.
        (folder / "vantage_tools.py").write_text("")
    playbook = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        str(folder / "hosts.yml"),
        "playbooks/report.yml",
    ]
    return subprocess.run(
        [*playbook, "-e", json.dumps(variables), *arguments], check=False, capture_output=True, text=True, env=environment, cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_role_writes_a_report_and_leaves_no_data(engines: int, tmp_path: Path) -> None:
    done = report(tmp_path, engines, "-e", "report_short=1m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    assert {"report.html", "report.md", "findings.json"} <= {path.name for path in (tmp_path / "report").iterdir()}
    assert not list(tmp_path.rglob("*.gz"))
    done = report(tmp_path, engines, "-e", "report_keep_data=true")
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(gzip.decompress((tmp_path / "report/data.json.gz").read_bytes()))
    assert (data["meta"]["host"], data["meta"]["short"]) == ("vm", 300)


def test_the_role_in_check_mode_asks_and_writes_nothing(engines: int, tmp_path: Path) -> None:
    done = report(tmp_path, engines, "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Collect metrics" not in done.stdout
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "installed", "keywords"),
    [
        (["-e", '{"report_short": "5 minutes"}'], True, ["5 minutes", "5m or 6h"]),
        (["-e", "report_shrt=1m"], True, ["report_shrt", "report_short"]),
        ([], False, ["pip install ./tools"]),
        (["-e", "prometheus_port=1", "-e", "loki_port=1", "-e", "jaeger_port=1"], True, ["no engine answers", "refused"]),
    ],
    ids=["range", "option", "tools", "engines"],
)  # fmt: skip
def test_the_role_fails_with_a_fix_and_writes_nothing(
    engines: int, tmp_path: Path, arguments: list[str], installed: bool, keywords: list[str]
) -> None:
    done = report(tmp_path, engines, *arguments, installed=installed)
    assert done.returncode != 0
    output = " ".join(done.stdout.split())
    assert all(keyword in output for keyword in keywords), done.stdout + done.stderr
    assert not (tmp_path / "report").exists()


OWN = 'http_server_request_duration_seconds_%s{service_name="shop", http_request_method="GET", http_route="/", %s}'
SPANS = 'traces_span_metrics_%s{service_name="%s", span_kind="SPAN_KIND_SERVER", span_name="GET /", %s}'


def test_requests_of_an_app_without_metrics_are_those_of_its_spans_or_lines_and_no_app_counts_twice(
    tmp_path: Path,
) -> None:
    program = programs.find("prometheus", "promtool")
    steady, series = "0+6x60", {}
    series[OWN % ("count", 'http_response_status_code="200"')] = steady
    for le in ("0.5", "1.0", "+Inf"):
        series[OWN % ("bucket", f'http_response_status_code="200", le="{le}"')] = steady
    for service in ("shop", "blog", "jaeger"):
        series[SPANS % ("calls_total", service, 'http_route="/", http_response_status_code="200"')] = steady
        # All take 0.5 to 1 s.
        for le, values in (("500.0", "0x60"), ("1000.0", steady), ("+Inf", steady)):
            series[SPANS % ("duration_milliseconds_bucket", service, f'http_route="/", le="{le}"')] = values
    series[SPANS % ("calls_total", "blog", 'http_response_status_code="404"')] = steady
    series[SPANS % ("calls_total", "blog", 'http_route="/", status_code="STATUS_CODE_ERROR"')] = steady
    # Access lines of all three; those of the shop and the blog are known better.
    for service in ("shop", "blog", "site"):
        lines = f'promtail_custom_http_server_%s{{service_name="{service}", http_request_method="GET", %s}}'
        for status in ("200", "502", "404"):
            series[lines % ("requests_total", f'http_response_status_code="{status}"')] = steady
        for le, values in (("0.1", "0x60"), ("0.25", steady), ("+Inf", steady)):
            series[lines % ("request_duration_seconds_bucket", f'le="{le}"')] = values
    requests = "sum by (service_name, http_request_method, http_route, http_response_status_code)"
    get = 'service_name="{}", http_request_method="GET", http_route="{}", http_response_status_code="{}"'
    exprs = {
        f"{requests} ({collect.OVER_WINDOW['requests']})": {
            get.format("blog", "/", 200): 120,
            get.format("blog", "/", 500): 120,
            get.format("blog", "_unmatched", 404): 120,
            get.format("shop", "/", 200): 120,
            **{get.format("site", "_unknown", status): 120 for status in (200, 502, 404)},
        },
        f"count by (service_name) ({collect.OVER_WINDOW['buckets']})": {
            'service_name="shop"': 3,
            'service_name="site"': 3,
        },
        f"count by (service_name) ({collect.OVER_WINDOW['span_buckets']})": {'service_name="blog"': 3},
        collect.OVER_WINDOW["p99"]: {
            'service_name="blog"': 0.995,
            'service_name="shop"': 0.495,
            'service_name="site"': 0.249,
        },
        collect.OVER_TIME["rate"]: {'service_name="blog"': 1.2, 'service_name="shop"': 0.4, 'service_name="site"': 1.2},
        collect.OVER_TIME["failed"]: {'service_name="blog"': 0.4, 'service_name="site"': 0.4},
        collect.OVER_TIME["refused"]: {'service_name="blog"': 0.4, 'service_name="site"': 0.4},
        collect.OVER_TIME["p95"]: {
            'service_name="blog"': 0.975,
            'service_name="shop"': 0.475,
            'service_name="site"': 0.243,
        },
    }
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"round({query.replace('$w', '300s').replace('$rate', '300s')}, 0.001)",
                "eval_time": "10m",
                "exp_samples": [{"labels": f"{{{labels}}}", "value": value} for labels, value in samples.items()],
            }
            for query, samples in exprs.items()
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps({"evaluation_interval": "15s", "rule_files": [], "tests": [test]}))
    result = subprocess.run(
        [program, "test", "rules", "test.yml"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
