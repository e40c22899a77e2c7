"""Spans of databases, HTTP clients and queues, by the real libraries."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import tomllib
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from collector import Collector
from conftest import APP, ReadLines, serve_in_thread
from flask_vantage import Vantage, clients
from served import SOURCES

Spans = Callable[[], tuple[ReadableSpan, ...]]


@pytest.fixture(autouse=True)
def _instrumented(app: Flask) -> None:
    """The app has `Vantage(app)`."""


@pytest.fixture
def call(app: Flask, spans: Spans) -> Callable[[Callable[[], object]], tuple[ReadableSpan, ...]]:
    """Return a function that runs its argument in a request and returns the spans below the server's."""

    def run(work: Callable[[], object]) -> tuple[ReadableSpan, ...]:
        app.add_url_rule("/work", view_func=lambda: str(work()), endpoint="work")
        assert app.test_client().get("/work").status_code == 200
        *earlier, server = spans()
        assert server.kind is SpanKind.SERVER
        inner = tuple(span for span in earlier if span.context.trace_id == server.context.trace_id)
        assert {span.parent and span.parent.span_id for span in inner} <= {server.context.span_id}
        return inner

    return run


def statements(spans: tuple[ReadableSpan, ...]) -> list[object]:
    assert {span.kind for span in spans} <= {SpanKind.CLIENT}
    return [(span.attributes or {})["db.statement"] for span in spans]


# SQLite ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["connection", "cursor"])
def test_sqlite_statement_is_one_child_of_the_server_span(call: Any, through: str) -> None:
    def work() -> object:
        with closing(sqlite3.connect(":memory:")) as connection:
            door: Any = connection if through == "connection" else connection.cursor()
            door.execute("CREATE TABLE note (text)")
            door.executemany("INSERT INTO note VALUES (?)", [("a",), ("b",)])
            return door.execute("SELECT count(*) FROM note WHERE text <> ?", ("secret",)).fetchone()[0]

    spans = call(work)
    assert [span.name for span in spans] == ["CREATE", "INSERT", "SELECT"]
    assert statements(spans)[2] == "SELECT count(*) FROM note WHERE text <> ?"
    assert (spans[2].attributes or {})["db.system"] == "sqlite"


def test_sqlite_connection_is_the_real_thing() -> None:
    with closing(sqlite3.connect(":memory:")) as source, closing(sqlite3.connect(":memory:")) as target:
        source.execute("CREATE TABLE note (text)")
        # A proxy is refused here.
        source.backup(target)
        assert [name for (name,) in target.execute("SELECT name FROM sqlite_master")] == ["note"]
        assert sqlite3.Cursor(target).execute(" ").fetchall() == []
        assert target.execute(" ").fetchall() == []


def test_connection_class_of_the_app_is_kept() -> None:
    class Own(sqlite3.Connection):
        pass

    with closing(sqlite3.connect(":memory:", factory=Own)) as connection:
        assert type(connection) is Own
    with closing(sqlite3.connect(":memory:", 5.0, 0, None, True, Own)) as connection:
        assert type(connection) is Own


def test_failed_statement_is_an_error_span(call: Any) -> None:
    def work() -> None:
        with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.OperationalError):
            connection.execute("SELECT * FROM nowhere")

    (span,) = call(work)
    assert span.status.status_code is StatusCode.ERROR


def test_statement_of_a_readiness_check_is_no_trace(registry: CollectorRegistry, spans: Spans) -> None:
    app = Flask("checked")
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        Vantage(app, registry=registry).add_readiness_check("database", lambda: connection.execute("SELECT 1"))
        assert app.test_client().get("/readyz").status_code == 200
    assert spans() == ()


# SQLAlchemy -----------------------------------------------------------------------------------------------------------


def test_sqlalchemy_on_an_instrumented_driver_is_one_span_per_statement(call: Any, tmp_path: Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/notes.db")

    def work() -> object:
        with engine.connect() as connection:
            return connection.execute(sqlalchemy.text("SELECT :a"), {"a": "secret"}).scalar()

    with engine.connect():  # asks for the driver's settings once
        pass
    assert statements(call(work)) == ["SELECT ?"]
    engine.dispose()


def test_sqlalchemy_traces_a_connection_that_the_driver_does_not(call: Any, tmp_path: Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    # As one that was opened before Vantage(app), or by a driver without an instrumentation.
    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: sqlite3.Connection(str(tmp_path / "notes.db")))

    def work() -> object:
        with engine.connect() as connection:
            with pytest.raises(sqlalchemy.exc.OperationalError):
                connection.execute(sqlalchemy.text("SELECT * FROM nowhere"))
            return connection.execute(sqlalchemy.text("SELECT 'secret', :a"), {"a": 1}).scalar()

    with engine.connect():
        pass
    failed, good = call(work)
    assert statements((failed, good)) == ["SELECT * FROM nowhere", "SELECT ?, ?"]
    assert [failed.status.status_code, good.status.status_code] == [StatusCode.ERROR, StatusCode.UNSET]
    assert [event.name for event in failed.events] == ["exception"]
    engine.dispose()


# What a statement shows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "masked"),
    [
        ("SELECT a1 FROM t2 WHERE b = 'x' AND c=12.5 LIMIT 10", "SELECT a1 FROM t2 WHERE b = ? AND c=? LIMIT ?"),
        ("UPDATE t SET a = 'it''s' WHERE \"b\" = 0x1f", 'UPDATE t SET a = ? WHERE "b" = 0x1f'),
        ("SELECT $1, :p1, %s, ?", "SELECT $1, :p1, %s, ?"),
        ("INSERT INTO t VALUES ('unfinished", "INSERT INTO t VALUES (?"),
        (r"SELECT 'C:\', 'secret'", "SELECT ?, ?"),
    ],
)
def test_literals_of_a_statement_are_masked(statement: str, masked: str) -> None:
    assert clients.mask(statement) == masked


def test_double_quotes_and_backslashes_are_read_as_mysql_does() -> None:
    assert clients.mask(r"""SELECT "se\"cret", 'it\'s', `a1` FROM t""", is_mysql=True) == "SELECT ?, ?, `a1` FROM t"


@pytest.mark.parametrize("library", ["psycopg", "psycopg2", "pymysql"])
def test_driver_records_masked_statements(library: str) -> None:
    pytest.importorskip(library)
    package = import_module(f"opentelemetry.instrumentation.{library}")
    tracer = getattr(package, "CursorTracer", package.dbapi.CursorTracer)(package.dbapi.DatabaseApiIntegration("", ""))
    cursor = type("Cursor", (), {"__module__": f"{library}.cursors"})()
    assert tracer.get_statement(cursor, ("SELECT 'secret', 1",)) == "SELECT ?, ?"
    text = 'SELECT "secret"'
    assert tracer.get_statement(cursor, (text,)) == ("SELECT ?" if library == "pymysql" else text)


def test_cursors_of_an_instrumented_driver_are_known_as_traced() -> None:
    for library in ("psycopg", "psycopg2"):
        pytest.importorskip(library)
        kind = import_module(f"opentelemetry.instrumentation.{library}")._new_cursor_factory()
        assert clients._is_traced(object.__new__(type("Cursor", (), {"__module__": kind.__module__})))
    dbapi = import_module("opentelemetry.instrumentation.dbapi")
    # As PyMySQL's are.
    assert clients._is_traced(dbapi.get_traced_cursor_proxy(object(), dbapi.DatabaseApiIntegration("", "")))
    with closing(sqlite3.connect(":memory:")) as connection:
        assert clients._is_traced(connection.cursor())
    with closing(sqlite3.Connection(":memory:")) as connection:
        assert not clients._is_traced(connection.cursor())


def test_long_statement_is_cut(call: Any) -> None:
    sql = "SELECT 1" + " + 1" * 5000

    def work() -> None:
        with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.OperationalError):
            connection.execute(sql + "!")

    assert len(str(statements(call(work))[0])) <= clients.MAX_STATEMENT_LENGTH


# HTTP clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["requests", "httpx", "urllib3"])
def test_http_call_is_one_client_span_and_sends_its_context(call: Any, library: str) -> None:
    from flask import request

    called = Flask("called")
    called.add_url_rule("/", view_func=lambda: request.headers["traceparent"])
    url, stop = serve_in_thread(called)

    def work() -> object:
        if library == "urllib3":
            with import_module("urllib3").PoolManager() as pool:
                return pool.request("GET", url, headers={"Connection": "close"}).data.decode()
        return import_module(library).get(url, headers={"Connection": "close"}).text

    received: list[str] = []
    try:
        (span,) = call(lambda: received.append(str(work())))
    finally:
        stop()
    attributes = dict(span.attributes or {})
    assert span.kind is SpanKind.CLIENT
    assert received[0].split("-")[2] == f"{span.context.span_id:016x}"
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 200
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", int(url.rpartition(":")[2]))


# Other services -------------------------------------------------------------------------------------------------------


@pytest.fixture
def redis_port() -> Iterator[int]:
    """The port of a server that answers OK to every command."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(b"+OK\r\n" * len(re.findall(rb"^\*\d+\r\n", data, re.MULTILINE)))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def test_redis_command_is_a_span_without_its_values(call: Any, redis_port: int) -> None:
    redis = pytest.importorskip("redis")

    def work() -> object:
        with closing(redis.Redis(host="127.0.0.1", port=redis_port, protocol=2)) as store:
            return store.set("key", "secret")

    span = call(work)[-1]
    assert span.name == "SET"
    assert "secret" not in json.dumps(dict(span.attributes or {}))
    assert (span.attributes or {})["db.system"] == "redis"


def test_celery_task_is_sent_as_a_producer_span(call: Any) -> None:
    celery = pytest.importorskip("celery")
    queue = celery.Celery("queue", broker="memory://")

    @queue.task(name="add")  # type: ignore[untyped-decorator]
    def add(a: int, b: int) -> int:
        return a + b

    (span,) = call(lambda: add.delay(1, 2).id)
    assert span.kind is SpanKind.PRODUCER
    assert (span.attributes or {})["celery.task_name"] == "add"


@pytest.mark.parametrize("library", sorted(clients.INSTRUMENTORS))
def test_library_is_instrumented_by_its_import(library: str) -> None:
    pytest.importorskip(library)
    path, _, name = clients.INSTRUMENTORS[library].partition(":")
    instrumentor = getattr(import_module(f"opentelemetry.instrumentation.{path}"), name)()
    assert instrumentor.is_instrumented_by_opentelemetry


@pytest.mark.parametrize("library", sorted(clients.INSTRUMENTORS))
def test_package_of_each_instrumentation_is_a_dependency_of_the_image(library: str) -> None:
    package = f"opentelemetry-instrumentation-{library}"
    project = tomllib.loads((APP / "pyproject.toml").read_text())["project"]
    assert [line for line in project["dependencies"] if line.startswith(f"{package}>=")]
    assert f"\n{package}==" in (APP / "requirements.in").read_text()


# The app comes first --------------------------------------------------------------------------------------------------


def loaded_after(code: str, **environment: str) -> set[str]:
    """Return the modules that are loaded after `code`, in a process of its own."""
    code = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "OTEL_TRACES_EXPORTER": "none", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # Standard output is the log's.
    return set(json.loads(result.stderr.splitlines()[-1]))


WITH_VANTAGE = "from flask import Flask\nfrom flask_vantage import Vantage\nVantage(Flask('app'))\n"


def test_unused_library_is_not_imported() -> None:
    loaded = loaded_after(WITH_VANTAGE)
    unused = {"celery", "httpx", "psycopg", "psycopg2", "pymongo", "pymysql", "redis", "sqlalchemy", "sqlite3"}
    assert unused & loaded == set()
    assert {name for name in loaded for lib in unused if name == f"opentelemetry.instrumentation.{lib}"} == set()


def test_instrumentation_is_loaded_with_its_library() -> None:
    assert "opentelemetry.instrumentation.redis" in loaded_after(WITH_VANTAGE + "import redis")


def test_disabled_instrumentation_is_left_out() -> None:
    loaded = loaded_after(WITH_VANTAGE + "import redis", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="celery, redis")
    assert "opentelemetry.instrumentation.redis" not in loaded


def test_failing_instrumentation_is_logged_and_the_import_goes_on(lines: ReadLines) -> None:
    def hook(_: types.ModuleType) -> None:
        raise RuntimeError("a release that does not fit")

    clients._harmless(hook)(types.ModuleType("library"))
    (line,) = lines()
    assert line["level"] == "warning"
    assert "library" in line["message"]
    assert "RuntimeError: a release that does not fit" in line["message"]


# instrument: auto -----------------------------------------------------------------------------------------------------


SET_UP = {
    "auto": "from flask_vantage import auto\nauto.instrument()\nfrom plain_app import app\n",
    "Vantage(app)": "from plain_app import app\nfrom flask_vantage import Vantage\nVantage(app)\n",
}


@pytest.mark.parametrize("mode", SET_UP)
def test_both_modes_see_the_same_and_name_no_raw_path(mode: str) -> None:
    collector = Collector()
    code = (
        "client = app.test_client()\n"
        "assert client.get('/notes/7').get_json() == {'note': 7}\n"
        "assert client.get('/wp-login.php').status_code == 404\n"
        "from opentelemetry import trace\n"
        "trace.get_tracer_provider().shutdown()\n"
    )
    try:
        loaded_after(
            SET_UP[mode] + code,
            PYTHONPATH=f"{SOURCES}{os.pathsep}{APP / 'tests'}",
            OTEL_SERVICE_NAME="plain",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
        )
    finally:
        collector.close()
    named = {span.name: span for span in collector.spans}
    assert sorted(named) == ["GET", "GET /notes/<int:number>", "SELECT"]
    assert named["SELECT"].parent_span_id == named["GET /notes/<int:number>"].span_id
    assert "http.request.method" in {a.key for a in named["GET"].attributes}
    attributes = {a.key: a.value.string_value for a in named["SELECT"].attributes}
    assert attributes["db.statement"] == "SELECT ?, ?"
