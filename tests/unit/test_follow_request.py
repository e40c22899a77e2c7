"""What verify finds of a request, with the stores replaced by what they would answer."""

from __future__ import annotations

import http.server
import itertools
import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import follow_request
import pytest
from follow_request import Answer, Row, Settings, Verification, send_request
from rendering import ROLES, Host, load

STORES = {"prometheus": "http://p", "loki": "http://l", "jaeger": "http://j"}
APP = {"name": "blog", "image": "blog:1", "port": 8000}
BOTH = {"blog": "http://127.0.0.1:8000/", "blog-2": "http://127.0.0.1:8001/"}


def verification(**given: Any) -> Verification:
    found = {"app": "blog", "url": "http://a/", "seconds": 0.0, "scrape_interval": "1ms"} | given
    return Verification(Settings(**(STORES | found)))


def rows(one: Verification) -> dict[str, Row]:
    return {row.hop: row for row in one.rows}


class Stores:
    """What the stores answer, by a part of the URL or query, the first that matches; of a list, one after the other."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def fetch(self, url: str, _headers: Any = None, **parameters: Any) -> Any:
        asked = f"{url} {parameters.get('query', '')}"
        self.asked.append(asked)
        for part, answer in self.answers.items():
            if part in asked:
                with self.lock:
                    found = answer.pop(0) if isinstance(answer, list) and len(answer) > 1 else answer
                found = found[0] if isinstance(found, list) else found
                if isinstance(found, Exception):
                    raise found
                return found
        raise OSError(f"not expected: {asked}")


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Stores:
    """A request that every store has, of an app that answers 200 with trace `t1`."""
    found = Stores()
    found.answers = {
        "query_exemplars": EXEMPLARS,
        "query_range": LINES,
        "traces/": TRACE,
        "targets": {"data": {"activeTargets": []}},
        "calls_total": counts(),
        "request.*": counts(),
        "server_requests_total": counts(),
        "duration_seconds_count": [counts(s200=2), counts(s200=3)],
    }
    monkeypatch.setattr(follow_request, "fetch", found.fetch)
    answers_with(monkeypatch, "t1")
    monkeypatch.setattr(follow_request, "UNITS", Path("/nowhere"))
    monkeypatch.setattr(follow_request, "LATE_SCRAPE_SECONDS", 0)
    monkeypatch.setattr(follow_request, "COUNTED_SPANS_SECONDS", 0)
    monkeypatch.setattr("follow_request.time.sleep", lambda _: None)
    return found


def answers_with(monkeypatch: pytest.MonkeyPatch, trace_id: str, status: int = 200) -> None:
    monkeypatch.setattr(follow_request, "send_request", lambda *_: Answer(status, trace_id))


def vector(*values: str) -> dict[str, Any]:
    return {"data": {"result": [{"metric": {"instance": value}, "value": [0, value]} for value in values]}}


def counts(**by_status: float) -> dict[str, Any]:
    """A count by status, as s200=3; without a label as s=3."""
    series = [
        {"metric": {"http_response_status_code": name[1:]} if name[1:] else {}, "value": [0, str(value)]}
        for name, value in by_status.items()
    ]
    return {"data": {"result": series}}


LINES = {"data": {"result": [{"values": [["1", "{}"]]}]}}
NO_LINES: dict[str, Any] = {"data": {"result": []}}
TRACE = {"data": [{"spans": [{"processID": "p1"}], "processes": {"p1": {"serviceName": "blog"}}}]}
NO_TRACE: dict[str, Any] = {"data": []}
EXEMPLARS = {"data": [{"exemplars": [{"labels": {"trace_id": "t1"}}]}]}


def test_request_is_found_at_every_hop(stores: Stores) -> None:
    one = verification(services=["blog"])
    assert one.run() == []
    assert [row.hop for row in one.rows] == ["prometheus", "app", "log", "trace", "metric", "exemplar"]
    assert "t1" in rows(one)["app"].found
    assert rows(one)["metric"].found == "1 request counted"


@pytest.mark.parametrize(
    ("changed", "hop", "words"),
    [
        ({"sum by": OSError("refused")}, "prometheus", ["refused", "vantage-prometheus"]),
        ({"query_range": NO_LINES}, "log", ["Loki", "vantage-promtail", "vantage-loki"]),
        ({"traces/t1": NO_TRACE}, "trace", ["Jaeger", "blog, shop", "vantage-jaeger"]),
        ({"traces/t1": TRACE}, "trace", ["Jaeger", "blog, shop"]),
        ({"traces/t1": HTTPError("http://j", 500, "x", None, None)}, "trace", ["500"]),  # type: ignore[arg-type]
    ],
)
def test_failure_names_hop_reason_and_logs(stores: Stores, changed: dict[str, Any], hop: str, words: list[str]) -> None:
    stores.answers = changed | stores.answers | changed
    problem = verification(services=["blog", "shop"]).run()[0]
    for word in [f"hop '{hop}'", "within 0 s", *words]:
        assert word in problem


def test_hop_that_fails_does_not_hide_the_others(stores: Stores) -> None:
    stores.answers["query_range"] = OSError("hangs")
    one = verification(services=["blog"])
    (problem,) = one.run()
    assert "'log'" in problem
    assert {row.hop: bool(row.problem) for row in one.rows} == {
        **{"prometheus": False, "app": False, "log": True, "trace": False, "metric": False, "exemplar": False},
    }


def test_answer_of_a_server_error_is_a_failure(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_with(monkeypatch, "t1", status=503)
    one = verification()
    (problem,) = one.run()
    assert "'app'" in problem
    assert "503" in problem
    assert [row.hop for row in one.rows] == ["prometheus", "app"]


def test_host_without_an_app_has_its_stores_asked(stores: Stores) -> None:
    stores.answers |= {"labels": {}, "services": {}}
    one = verification(app="", url="")
    assert one.run() == []
    assert [row.hop for row in one.rows] == ["prometheus", "stores", "app"]


def test_app_that_site_did_not_install_is_refused(stores: Stores, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "vantage-loki.service").touch()
    monkeypatch.setattr(follow_request, "UNITS", tmp_path)
    (problem,) = verification(is_local=True).run()
    assert "no app blog" in problem
    assert "site.yml" in problem


# The request's own line, span and count --------------------------------------------------------------------------------


@pytest.mark.parametrize("trace_id", ["t1", ""])
def test_line_and_trace_are_those_of_the_request(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, trace_id: str
) -> None:
    answers_with(monkeypatch, trace_id)
    one = verification()
    one.run()
    own = trace_id or one.id
    (lines,) = {asked for asked in stores.asked if "query_range" in asked}
    assert f'"{one.id}{"|t1" if trace_id else ""}"' in lines
    assert f"http://j/api/traces/{own} " in stores.asked


def test_request_carries_one_id_where_apps_look_for_it(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, str]] = []
    monkeypatch.setattr(follow_request, "send_request", lambda _, headers: sent.append(headers) or Answer(200, "t1"))
    one = verification()
    one.run()
    assert sent[0]["traceparent"].split("-")[1] == one.id
    assert sent[0]["X-Request-ID"] == f"verify-{one.id}"
    assert sent[0]["User-Agent"] == f"vantage-verify/{one.id}"


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"s200": 2}, {"s200": 3}, "1 request counted"),
        ({}, {"s200": 1}, "1 request counted"),
        ({"s200": 2}, {"s200": 2}, ""),
        ({}, {"s200": 0}, ""),
        ({"s200": 2, "s500": 1}, {"s200": 2, "s500": 9}, ""),
        # The app was restarted: what its counter had before says nothing.
        ({"s200": 7}, {"s200": 3}, ""),
    ],
)
def test_count_must_grow_by_this_request(
    stores: Stores, before: dict[str, float], after: dict[str, float], found: str
) -> None:
    stores.answers["duration_seconds_count"] = [counts(**before), counts(**after)]
    one = verification(services=["blog"])
    problems = one.run()
    assert rows(one)["metric"].found.startswith(found or "FAILED: this request is not counted")
    assert len(problems) == (not found)


def test_count_after_a_restart_is_that_of_one_more_request(stores: Stores) -> None:
    stores.answers["duration_seconds_count"] = [counts(s200=7), counts(s200=3), counts(s200=4)]
    one = verification(services=["blog"], seconds=5.0)
    assert one.run() == []
    assert rows(one)["metric"].found == "1 request counted"


def test_count_is_read_from_a_scrape_after_the_request(stores: Stores) -> None:
    one = verification()
    one.run()
    assert any(f'timestamp(up{{service_name="blog"}})) > {one.sent_at:.3f}' in asked for asked in stores.asked)


TARGET = {
    "labels": {"job": "apps", "service_name": "blog"},
    "scrapePool": "apps",
    "scrapeUrl": "http://blog:8000/metrics",
    "health": "down",
    "lastError": 'received unsupported Content-Type "text/html; charset=utf-8"',
}


def test_metric_hop_says_why_prometheus_cannot_scrape(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [TARGET | {"labels": {"service_name": "loki"}, "lastError": "refused"}]
    stores.answers |= {
        "targets": {"data": {"activeTargets": [*others, TARGET]}},
        "duration_seconds_count": counts(s200=2),
    }
    asked: list[str] = []

    def send_request(url: str, *_: Any) -> Answer:
        asked.append(url)
        return Answer(302, "", "/login", "text/html") if url.endswith("/metrics") else Answer(200, "t1")

    monkeypatch.setattr(follow_request, "send_request", send_request)
    (problem,) = verification(services=["blog"]).run()
    for word in ("'metric'", "http://blog:8000/metrics", "redirected to /login", "text/html"):
        assert word in problem
    assert "refused" not in problem
    assert "http://a/metrics" in asked


@pytest.fixture
def gated() -> Iterator[str]:
    """The address of an app whose page is behind a login."""

    class App(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_login = self.path == "/login"
            self.send_response(200 if is_login else 302)
            if not is_login:
                self.send_header("Location", "/login")
            self.send_header("X-Trace-Id", "of-login" if is_login else "of-page")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/page"
    server.shutdown()
    server.server_close()


def test_redirect_is_the_answer_and_is_not_followed(gated: str) -> None:
    answer = send_request(gated)
    assert (answer.status, answer.trace_id, answer.location) == (302, "of-page", "/login")


# Apps without X-Trace-Id -----------------------------------------------------------------------------------------------

NEW_SPANS = [counts(s200=7), counts(s200=8)]


@pytest.mark.parametrize(
    ("signals", "changed", "expected"),
    [
        ([], {}, {"log": "1 line", "trace": "1 span of blog", "metric": "1 request counted from its spans"}),
        ([], {"query_range": NO_LINES}, {"log": "- (no line"}),
        ([], {"|~": NO_LINES, "query_range": LINES}, {"log": "- (1 line in ten minutes, none"}),
        ([], {"traces/": NO_TRACE}, {"trace": "- (no span"}),
        ([], {"calls_total": counts(s200=7)}, {"metric": "- ("}),
        ([], {"calls_total": counts(s200=0)}, {"metric": "- ("}),
        (
            [],
            {"calls_total": counts(), "server_requests_total": [counts(s200=7), counts(s200=8)]},
            {"metric": "1 request counted from its access lines"},
        ),
        ([], {"calls_total": counts(), "request.*": [counts(s=1), counts(s=2)]}, {"metric": "counted by its own"}),
        ([], {"calls_total": counts(), "count(": vector("12")}, {"metric": "12 series, none"}),
        (["trace"], {"query_range": NO_LINES}, {"log": "- (no line", "trace": "1 span "}),
    ],
)
def test_app_without_trace_ids_is_shown_with_the_signals_it_gives(
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    signals: list[str],
    changed: dict[str, Any],
    expected: dict[str, str],
) -> None:
    answers_with(monkeypatch, "")
    stores.answers = changed | stores.answers | {"calls_total": list(NEW_SPANS), "count(": NO_LINES} | changed
    one = verification(signals=signals)
    assert one.run() == []
    assert [row.hop for row in one.rows][-3:] == ["log", "trace", "metric"]
    for hop, text in expected.items():
        assert rows(one)[hop].found.startswith(text), rows(one)


@pytest.mark.parametrize(
    ("is_scraped", "has_trace", "has_line", "seconds"),
    [(True, False, False, 20), (False, True, False, 30), (False, False, True, 20), (False, False, False, 8)],
)
def test_optional_signal_is_looked_for_no_longer_than_it_can_take(
    monkeypatch: pytest.MonkeyPatch, is_scraped: bool, has_trace: bool, has_line: bool, seconds: int
) -> None:
    clock = itertools.count()
    monkeypatch.setattr("follow_request.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("follow_request.time.sleep", lambda _: None)
    one = verification(is_scraped=is_scraped, seconds=60.0, scrape_interval="15s")
    one.has_trace, one.has_line = has_trace, has_line
    assert one.option("metric", lambda: "").seconds == seconds + 1


def test_missing_signal_that_was_declared_is_a_failure(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_with(monkeypatch, "")
    stores.answers |= {"query_range": NO_LINES, "traces/": NO_TRACE, "count(": NO_LINES}
    (problem,) = verification(signals=["trace"]).run()
    assert "hop 'trace'" in problem
    assert "X-Trace-Id" in problem


# What the timer asks for -----------------------------------------------------------------------------------------------


def test_only_what_must_be_there_is_looked_for_with_a_line_of_the_caller(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_with(monkeypatch, "")
    stores.answers |= {"labels": {}, "services": {}}
    one = verification(log_service="verify")
    assert one.run() == []
    assert [row.hop for row in one.rows] == ["prometheus", "app", "log", "stores"]
    assert any(f'{{service_name="verify"}} |~ "{one.id}"' in asked for asked in stores.asked)


def test_app_with_trace_ids_is_asked_once_where_exemplars_are_left_out(stores: Stores) -> None:
    one = verification(log_service="verify", services=["blog"], alertmanager="http://am")
    stores.answers["am/api/v2/alerts"] = {"alert": "Watchdog"}
    assert one.run() == []
    assert [row.hop for row in one.rows] == ["prometheus", "app", "log", "trace", "metric", "alertmanager"]


def test_alertmanager_without_the_watchdog_is_a_failure(stores: Stores) -> None:
    stores.answers["am/api/v2/alerts"] = {}
    (problem,) = verification(services=["blog"], alertmanager="http://am").run()
    assert "'alertmanager'" in problem
    assert "Watchdog" in problem


# Replicas --------------------------------------------------------------------------------------------------------------


def test_every_replica_is_asked_and_those_of_another_host_are_not_counted(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(follow_request, "send_request", lambda url, *_: asked.append(url) or Answer(200, ""))
    stores.answers['up{job="apps", service_name="blog", host="web"} == 1'] = vector("blog:8000", "blog-2:8000")
    found = verification(replicas=BOTH, host="web").find_replicas()
    assert "blog, blog-2" in found
    assert "scraped" in found
    assert asked == list(BOTH.values())
    assert "scraped" not in verification(replicas=BOTH, is_scraped=False).find_replicas()


def test_replica_that_prometheus_does_not_reach_is_reported(stores: Stores) -> None:
    stores.answers["up{"] = vector("blog:8000")
    with pytest.raises(ValueError, match=r"blog, blog-2 answer.*blog:8000$"):
        verification(replicas=BOTH, host="vm").find_replicas()


def test_replica_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_request(url: str, *_: Any) -> Answer:
        if "8001" in url:
            raise OSError("refused")
        return Answer(200, "")

    monkeypatch.setattr(follow_request, "send_request", send_request)
    with pytest.raises(ValueError, match=r"blog-2 at http://127.0.0.1:8001/: refused"):
        verification(replicas=BOTH, host="vm").find_replicas()


# The role's call -------------------------------------------------------------------------------------------------------


def settings_of(app: dict[str, Any] | None, **given: Any) -> Settings:
    """The settings that the program reads from the words with which the role calls it."""
    (task,) = (task for task in load(ROLES / "verify/tasks/request.yml") if "ansible.builtin.script" in task)
    host = Host("verify", vantage_apps=[app] if app else [], **given)
    program, argument = shlex.split(host.value(task["ansible.builtin.script"]["cmd"]))
    assert program == "follow_request.py"
    return Settings(**json.loads(argument))


@pytest.mark.parametrize(
    ("app", "path"),
    [
        ({"health_path": "/hello"}, "/hello"),
        # flask_vantage answers there, and neither counts nor traces it.
        ({"health_path": "/readyz"}, "/"),
        ({}, "/"),
        ({"name": "storefront"}, "/products"),
    ],
)
def test_request_goes_to_a_page_that_the_app_has(app: dict[str, Any], path: str) -> None:
    assert settings_of(APP | app).url == f"http://127.0.0.1:8000{path}"


def test_timer_follows_a_request_from_the_monitoring_host_only() -> None:
    def content(**given: Any) -> dict[str, Any]:
        files = Host("verify", vantage_apps=[APP], **given).value(
            load(ROLES / "verify/vars/main.yml")["__verify_files"]
        )
        (text,) = [file["content"] for file in files if file["path"].endswith("settings.json")]
        return dict(json.loads(text))

    found = Settings(**content())
    assert (found.app, found.log_service, found.seconds) == ("blog", "verify", 20)
    assert Settings(**content(**TWO_HOSTS)).url == "http://10.0.0.8:8000/"
    assert content(**(TWO_HOSTS | {"inventory_hostname": "web"})) == {}


TWO_HOSTS = {
    "inventory_hostname": "mon",
    "groups": {"all": ["web", "web2", "mon"], "app": ["web", "web2"], "monitoring": ["mon"]},
    "hostvars": {"web": {"ansible_host": "10.0.0.8"}, "web2": {"ansible_host": "10.0.0.9"}, "mon": {}},
}


@pytest.mark.parametrize(
    ("given", "host", "address"), [({}, "vm", "127.0.0.1"), (TWO_HOSTS, "web", "10.0.0.8")], ids=["one", "two"]
)
def test_path_with_commas_and_quotes_reaches_every_replica_whole(
    given: dict[str, Any], host: str, address: str
) -> None:
    path = "/items?ids=1,2&name=it's"
    found = settings_of(APP | {"replicas": 2}, verify_path=path, **given)
    assert found.url == f"http://{address}:8000{path}"
    assert found.replicas == {"blog": found.url, "blog-2": f"http://{address}:8001{path}"}
    assert (found.host, found.is_local) == (host, host == "vm")
    assert settings_of(APP, verify_path=path, **given).replicas == {}


def test_settings_have_the_types_that_the_program_expects() -> None:
    found = settings_of(APP | {"metrics": False}, verify_seconds="7", verify_signals=["log"], grafana_enabled="false")
    assert (found.seconds, found.is_scraped, found.signals, found.services) == (7, False, ["log"], ["blog"])
    assert found.grafana == ""
    assert found.prometheus == "http://127.0.0.1:9090"
    assert settings_of(APP).grafana == "http://127.0.0.1:3000"


def test_without_an_app_the_stores_alone_are_asked() -> None:
    found = settings_of(None)
    assert (found.app, found.url, found.loki) == ("", "", "http://127.0.0.1:3100")
