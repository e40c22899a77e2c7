"""What verify finds of a request, with the stores replaced by what they would answer."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import follow_request
import pytest
from follow_request import HopError, Settings, Verification
from rendering import ROLES, Host, load

STORES = {"prometheus": "http://p", "loki": "http://l", "jaeger": "http://j"}
APP = {"name": "blog", "image": "blog:1", "port": 8000}
BOTH = {"blog": "http://127.0.0.1:8000/", "blog-2": "http://127.0.0.1:8001/"}


def verification(**given: Any) -> Verification:
    return Verification(Settings(**(STORES | {"app": "blog", "url": "http://a/", "seconds": 0.0} | given)))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stores answer, by a part of the URL or query, the first that matches; the app gives trace `t1`."""
    found: dict[str, Any] = {}

    def fetch(url: str, _headers: Any = None, **parameters: Any) -> Any:
        asked = f"{url} {parameters.get('query', '')}"
        for part, answer in found.items():
            if part in asked:
                if isinstance(answer, Exception):
                    raise answer
                return answer
        raise OSError(f"not expected: {asked}")

    monkeypatch.setattr(follow_request, "fetch", fetch)
    monkeypatch.setattr(follow_request, "send_request", lambda *_: (200, "t1"))
    monkeypatch.setattr(follow_request, "UNITS", Path("/nowhere"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    return found


def vector(*values: str) -> dict[str, Any]:
    return {"data": {"result": [{"metric": {"instance": value}, "value": [0, value]} for value in values]}}


LINES = {"data": {"result": [{"values": [["1", "{}"]]}]}}
NO_LINES: dict[str, Any] = {"data": {"result": []}}
TRACE = {"data": [{"spans": [{"processID": "p1"}], "processes": {"p1": {"serviceName": "blog"}}}]}
EXEMPLARS = {"data": [{"exemplars": [{"labels": {"trace_id": "t1"}}]}]}


def test_request_is_found_at_every_hop(answers: dict[str, Any]) -> None:
    answers |= {
        "query_exemplars": EXEMPLARS,
        "query_range": LINES,
        "traces/t1": TRACE,
        "sum(": vector("3"),
    }
    one = verification(services=["blog"])
    one.count_requests = iter([2.0, 3.0]).__next__  # type: ignore[method-assign]
    one.run()
    assert [hop for hop, _, _ in one.rows] == ["prometheus", "app", "log", "trace", "metric", "exemplar"]
    assert "t1" in {hop: found for hop, _, found in one.rows}["app"]


@pytest.mark.parametrize(
    ("changed", "hop", "words"),
    [
        ({"sum(": OSError("refused")}, "prometheus", ["refused", "vantage-prometheus"]),
        ({"query_range": NO_LINES}, "log", ["Loki", "vantage-promtail", "vantage-loki"]),
        ({"traces/t1": {"data": []}}, "trace", ["Jaeger", "blog, shop", "vantage-jaeger"]),
        ({"traces/t1": TRACE}, "trace", ["Jaeger", "blog, shop"]),
        ({"traces/t1": HTTPError("http://j", 500, "x", None, None)}, "trace", ["500"]),  # type: ignore[arg-type]
    ],
)
def test_failure_names_hop_reason_and_logs(
    answers: dict[str, Any], changed: dict[str, Any], hop: str, words: list[str]
) -> None:
    answers |= changed | {"query_range": LINES, "sum(": vector("2")} | changed
    with pytest.raises(HopError) as error:
        verification(services=["blog", "shop"]).run()
    for word in [f"hop '{hop}'", "within 0 s", *words]:
        assert word in str(error.value)


def test_host_without_an_app_has_its_stores_asked(answers: dict[str, Any]) -> None:
    answers |= {"labels": {}, "services": {}, "sum(": vector()}
    one = verification(app="", url="")
    one.run()
    assert [hop for hop, _, _ in one.rows] == ["prometheus", "stores", "app"]


def test_app_that_site_did_not_install_is_refused(answers: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "vantage-loki.service").touch()
    monkeypatch.setattr(follow_request, "UNITS", tmp_path)
    answers["sum("] = vector("2")
    with pytest.raises(HopError, match=r"no app blog\b.*site\.yml"):
        verification(is_local=True).run()


@pytest.mark.parametrize(
    ("signals", "changed", "expected"),
    [
        ([], {}, {"log": "1 line", "trace": "1 span of blog", "metric": "5 series"}),
        ([], {"query_range": NO_LINES}, {"log": "- (no line"}),
        ([], {"traces/": {"data": []}}, {"trace": "- (no span"}),
        ([], {"traces ": {"data": [1, 2]}, "traces/": {"data": []}}, {"trace": "2 in ten minutes"}),
        ([], {"count(": NO_LINES}, {"metric": "7 calls"}),
        (["trace"], {"query_range": NO_LINES}, {"log": "- (no line", "trace": "1 span "}),
    ],
)
def test_app_without_trace_ids_is_shown_with_the_signals_it_gives(
    answers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    signals: list[str],
    changed: dict[str, Any],
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr(follow_request, "send_request", lambda *_: (200, ""))
    everything = {"query_range": LINES, "traces/": TRACE, "count(": vector("5"), "calls_total": vector("7")}
    answers |= changed | everything | {"traces ": {"data": []}, "sum(": vector()} | changed
    one = verification(signals=signals)
    one.run()
    rows = {hop: found for hop, _, found in one.rows}
    assert list(rows)[-3:] == ["log", "trace", "metric"]
    for hop, text in expected.items():
        assert rows[hop].startswith(text), rows


@pytest.mark.parametrize(
    ("is_scraped", "traces", "seconds"), [(True, [], 20), (False, ["one of its own"], 20), (False, [], 8)]
)
def test_optional_signal_is_looked_for_no_longer_than_it_can_take(
    answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, is_scraped: bool, traces: list[str], seconds: int
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(follow_request, "send_request", lambda *_: (200, ""))
    monkeypatch.setattr("follow_request.time.monotonic", lambda: next(clock))
    missing = {"query_range": NO_LINES, "count(": NO_LINES, "calls_total": NO_LINES, "sum(": vector("2")}
    answers |= missing | {"traces ": {"data": traces}, "traces/": {"data": []}}
    one = verification(is_scraped=is_scraped, seconds=60.0)
    one.find_signals()
    assert [took for hop, took, _ in one.rows if hop == "metric"] == [seconds + 1]


def test_missing_signal_that_was_declared_is_a_failure(answers: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(follow_request, "send_request", lambda *_: (200, ""))
    answers |= {"query_range": NO_LINES, "traces": {"data": []}, "count(": vector("5"), "sum(": vector()}
    with pytest.raises(HopError, match=r"hop 'trace'.*X-Trace-Id"):
        verification(signals=["trace"]).run()


# Replicas --------------------------------------------------------------------------------------------------------------


def test_every_replica_is_asked_and_those_of_another_host_are_not_counted(
    answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(follow_request, "send_request", lambda url, *_: asked.append(url))
    answers['up{job="apps", service_name="blog", host="web"} == 1'] = vector("blog:8000", "blog-2:8000")
    found = verification(replicas=BOTH, host="web").find_replicas()
    assert "blog, blog-2" in found
    assert "scraped" in found
    assert asked == list(BOTH.values())
    assert "scraped" not in verification(replicas=BOTH, is_scraped=False).find_replicas()


def test_replica_that_prometheus_does_not_reach_is_reported(answers: dict[str, Any]) -> None:
    answers["up{"] = vector("blog:8000")
    with pytest.raises(ValueError, match=r"blog, blog-2 answer.*blog:8000$"):
        verification(replicas=BOTH, host="vm").find_replicas()


def test_replica_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_request(url: str, *_: Any) -> tuple[int, str]:
        if "8001" in url:
            raise OSError("refused")
        return 200, ""

    monkeypatch.setattr(follow_request, "send_request", send_request)
    with pytest.raises(ValueError, match=r"blog-2 at http://127.0.0.1:8001/: refused"):
        verification(replicas=BOTH, host="vm").find_replicas()


# The role's call -------------------------------------------------------------------------------------------------------


def settings_of(app: dict[str, Any] | None, **given: Any) -> Settings:
    """The settings that the program reads from the words with which the role calls it."""
    (task,) = (task for task in load(ROLES / "verify/tasks/main.yml") if "ansible.builtin.script" in task)
    host = Host("verify", vantage_apps=[app] if app else [], **(given | task["vars"]))
    program, argument = shlex.split(host.value(task["ansible.builtin.script"]))
    assert program == "follow_request.py"
    return Settings(**json.loads(argument))


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
