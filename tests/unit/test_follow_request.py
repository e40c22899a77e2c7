"""What verify's script says of an app's signals and replicas, with the stores replaced by what they would answer."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shlex
from argparse import Namespace
from types import ModuleType
from typing import Any

import pytest
from rendering import ROLES, Host, load


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("follow_request", str(ROLES / "verify/files/follow-request"))
    spec = importlib.util.spec_from_loader("follow_request", loader)
    assert spec
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def options(**given: Any) -> Namespace:
    addresses = {"prometheus": "http://p", "loki": "http://l", "jaeger": "http://j"}
    return Namespace(**addresses, app="blog", seconds=60.0, scraped="yes", **given)


@pytest.mark.parametrize(
    ("scraped", "missing", "traces", "seconds"),
    [
        ("yes", {"trace", "metric"}, [], 20),
        ("no", {"metric"}, [], 20),
        ("no", {"trace", "metric"}, ["one of its own"], 20),
        ("no", {"trace", "metric"}, [], 8),
    ],
)
def test_it_looks_no_longer_than_a_signal_can_take(
    follow: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    scraped: str,
    missing: set[str],
    traces: list[str],
    seconds: int,
) -> None:
    monkeypatch.setattr(follow, "query", lambda *_, **__: {"data": traces})
    given = options()
    given.scraped = scraped
    assert follow.patience(given, dict.fromkeys(missing), 8.1) == seconds
    assert follow.patience(given, dict.fromkeys(missing), 7.9) == 20


def reached(follow: ModuleType, monkeypatch: pytest.MonkeyPatch, *instances: str) -> list[str]:
    """Lets Prometheus reach these instances and all replicas answer; the list is of what was asked, Prometheus last."""
    asked: list[str] = []
    result = [{"metric": {"instance": instance}} for instance in instances]

    def query(url: str, *, query: str) -> Any:
        asked.append(f"{url} {query}")
        return {"data": {"result": result}}

    monkeypatch.setattr(follow, "query", query)
    monkeypatch.setattr(follow, "ask", lambda url, *_: asked.append(url))
    return asked


BOTH = [("blog", "http://127.0.0.1:8000/"), ("blog-2", "http://127.0.0.1:8001/")]


def test_every_replica_is_asked_and_named_and_those_of_another_host_are_not_counted(
    follow: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = reached(follow, monkeypatch, "blog:8000", "blog-2:8000")
    assert follow.replicas(options(replicas=BOTH, app_host="web")) == "blog, blog-2 answer and are scraped"
    assert asked == [
        "http://127.0.0.1:8000/",
        "http://127.0.0.1:8001/",
        'http://p/api/v1/query up{job="apps", service_name="blog", host="web"} == 1',
    ]


def asked_of(follow: ModuleType, monkeypatch: pytest.MonkeyPatch, app: dict[str, Any], **given: Any) -> Namespace:
    """The options that the script reads from the words with which the role calls it."""
    (task,) = (task for task in load(ROLES / "verify/tasks/main.yml") if "ansible.builtin.script" in task)
    command = Host("verify", vantage_apps=[app], **(given | task["vars"])).value(task["ansible.builtin.script"]["cmd"])
    monkeypatch.setattr("sys.argv", shlex.split(command))
    found = follow.parse()
    assert isinstance(found, Namespace)
    return found


TWO_HOSTS = {
    "inventory_hostname": "mon",
    "groups": {"all": ["web", "web2", "mon"], "app": ["web", "web2"], "monitoring": ["mon"]},
    "hostvars": {"web": {"ansible_host": "10.0.0.8"}, "web2": {"ansible_host": "10.0.0.9"}, "mon": {}},
}


@pytest.mark.parametrize(
    ("given", "host", "address"), [({}, "vm", "127.0.0.1"), (TWO_HOSTS, "web", "10.0.0.8")], ids=["one", "two"]
)
def test_a_path_with_commas_reaches_every_replica_whole(
    follow: ModuleType, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], host: str, address: str
) -> None:
    app = {"name": "blog", "image": "blog:1", "port": 8000}
    path = "/items?ids=1,2&name=it's"
    found = asked_of(follow, monkeypatch, app | {"replicas": 2}, verify_path=path, **given)
    assert found.app_url == f"http://{address}:8000{path}"
    assert found.replicas == [("blog", found.app_url), ("blog-2", f"http://{address}:8001{path}")]
    assert found.app_host == host
    assert asked_of(follow, monkeypatch, app, verify_path=path, **given).replicas == []


def test_a_replica_that_prometheus_does_not_reach_is_told(follow: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    reached(follow, monkeypatch, "blog:8000")
    with pytest.raises(ValueError, match=r"blog, blog-2 answer, and Prometheus reaches blog:8000$"):
        follow.replicas(options(replicas=BOTH, app_host="vm"))


def test_a_replica_that_does_not_answer_is_named(follow: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(url: str, *_: Any) -> None:
        if "8001" in url:
            raise OSError("refused")

    monkeypatch.setattr(follow, "ask", ask)
    with pytest.raises(ValueError, match=r"blog-2 at http://127.0.0.1:8001/: refused"):
        follow.replicas(options(replicas=BOTH, app_host="vm"))
