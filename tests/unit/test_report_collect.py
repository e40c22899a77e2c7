"""What the report asks, and what it makes of answers that are missing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from report_data import END

from vantage_report.__main__ import duration, main, windows
from vantage_report.asking import Answer, Question, over_http
from vantage_report.collect import Collector, NothingAnswers

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


class Engines:
    """A transport that answers as three engines do; `broken` ones refuse."""

    def __init__(self, *broken: str) -> None:
        self.broken, self.rounds, self.asked = broken, 0, []  # type: ignore[var-annotated]

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        self.rounds += 1
        self.asked += questions
        return [self.answer(question) for question in questions]

    def answer(self, question: Question) -> Answer:
        if question.engine in self.broken:
            return {"error": "Connection refused", "seconds": 0}
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
            return {"body": {"data": {"resultType": "scalar", "result": [END, str(END)]}}, "seconds": 0}
        if question.name == "patterns@short":
            labels = {"service_name": "shop", "level": "error", "said": "it `broke` at #"}
            return {
                "body": {"data": {"resultType": "vector", "result": [{"metric": labels, "value": [END, "3"]}]}},
                "seconds": 0,
            }
        if question.name.startswith(("first#", "last#")):
            stream = {"service_name": "shop", "trace_id": "cd" * 16}
            return {
                "body": {
                    "data": {"resultType": "streams", "result": [{"stream": stream, "values": [["5", "it broke"]]}]}
                },
                "seconds": 0,
            }
        if question.path.startswith("/api/traces/"):
            return {"error": "HTTP 404: trace not found", "seconds": 0}
        return {"body": bodies[question.path], "seconds": 0}


def test_everything_is_asked_in_few_rounds() -> None:
    engines, said = Engines(), []
    data = Collector(engines, 300, 21_600, said.append).run({"host": "vm"})
    assert engines.rounds <= 6
    assert data["meta"]["end"] == END
    assert data["problems"] == []
    assert [line.split(":")[0] for line in said[1:]] == ["metrics", "logs", "traces"]
    json.dumps(data)


def test_times_are_those_of_the_hosts_clock() -> None:
    engines = Engines()
    Collector(engines, 300, 21_600).run({})
    asked = {question.name: dict(question.parameters) for question in engines.asked}
    assert asked["requests@short"]["time"] == f"{END:.3f}"
    assert asked["requests@base"]["time"] == f"{END - 300:.3f}"
    assert "[21300s]" in asked["requests@base"]["query"]
    assert asked["rate~long"]["start"] == f"{END - 21_600:.3f}"


def test_jaegers_own_traces_are_not_looked_at_and_spans_lose_what_nobody_reads() -> None:
    engines = Engines()
    data = Collector(engines, 300, 21_600).run({})
    searched = {dict(q.parameters)["service"] for q in engines.asked if q.path == "/api/traces"}
    assert searched == {"shop"}
    (span,) = data["traces"]["short"][0]
    assert (span["service"], span["error"], span["tags"]) == ("shop", True, {})


def test_an_example_trace_that_jaeger_dropped_is_no_problem() -> None:
    engines = Engines()
    data = Collector(engines, 300, 21_600).run({})
    assert any(question.path == f"/api/traces/{'cd' * 16}" for question in engines.asked)
    assert data["problems"] == []
    (entry,) = data["logs"]["examples"]["patterns"].values()
    assert entry["last"] == [(5, "it broke", {"service_name": "shop", "trace_id": "cd" * 16})]
    # A backtick in the text must not end the query's string.
    assert entry["query"].endswith('said = "it `broke` at #"')


@pytest.mark.parametrize("broken", ["prometheus", "loki", "jaeger"])
def test_one_engine_that_is_away_leaves_the_others(broken: str) -> None:
    engines = Engines(broken)
    data = Collector(engines, 300, 21_600).run({})
    assert data["engines"][broken] == {"ok": False, "error": "Connection refused"}
    assert len([question for question in engines.asked if question.engine == broken]) <= 2
    assert bool(data["metrics"]) == (broken != "prometheus")
    assert bool(data["logs"]) == (broken != "loki")
    assert bool(data["traces"]) == (broken != "jaeger")


def test_no_engine_at_all_is_said() -> None:
    with pytest.raises(NothingAnswers, match="prometheus: Connection refused"):
        Collector(Engines("prometheus", "loki", "jaeger"), 300, 21_600).run({})


def test_a_query_that_fails_is_a_problem_and_no_end() -> None:
    class Slow(Engines):
        def answer(self, question: Question) -> Answer:
            return {"error": "timed out"} if question.name == "volume@long" else super().answer(question)

    said: list[str] = []
    data = Collector(Slow(), 300, 21_600, said.append).run({})
    assert data["problems"] == ["loki did not answer the query “volume@long”: timed out"]
    assert "1 without an answer" in said[2]


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = {"/json": (200, b"[1]"), "/html": (200, b"<p>")}.get(
                self.path.split("?")[0], (500, b"no disk")
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_answers_come_in_order_with_what_went_wrong(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    ask = over_http({"prometheus": server, "loki": "http://127.0.0.1:1"}, timeout=5)
    answers = ask([Question("a", "prometheus", path, (("query", "a b"),)) for path in ("/broken", "/json", "/html")])
    assert answers[0]["error"] == "HTTP 500: no disk"
    assert answers[1]["body"] == [1]
    assert "JSONDecodeError" in answers[2]["error"]
    assert "refused" in ask([Question("b", "loki", "/")])[0]["error"]


def test_lengths_of_time_are_read() -> None:
    assert [duration(text) for text in ("90", "90s", "5m", "6h", "1d")] == [90, 90, 300, 21_600, 86_400]
    assert windows("5m", "6h") == (300, 21_600)


@pytest.mark.parametrize(
    ("short", "long"), [("5 min", "6h"), ("0m", "6h"), ("-5m", "6h"), ("5m", "9m"), ("10s", "6h"), ("", "6h")]
)
def test_windows_that_cannot_be_are_refused(short: str, long: str) -> None:
    with pytest.raises(ValueError, match=r"window|length of time"):
        windows(short, long)


def test_program_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    nobody = "http://127.0.0.1:1"
    engines = ["--prometheus", nobody, "--loki", nobody, "--jaeger", nobody]
    assert main([*engines, "--out", str(tmp_path / "out")]) == 1
    assert "None of Prometheus, Loki and Jaeger answers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "data.json").write_text("{")
    assert main(["--data", str(tmp_path / "data.json")]) == 1
