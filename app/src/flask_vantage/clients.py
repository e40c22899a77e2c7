"""Spans for what an app calls: databases, HTTP services, queues.

A library is instrumented when the app imports it, so one that is installed and unused costs nothing. A statement is one
span, made by the driver; SQLAlchemy's own event makes it only for a driver without an instrumentation. Values are not
recorded: neither the parameters nor what the app wrote into the statement.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import wrapt
from loguru import logger
from opentelemetry import trace
from opentelemetry.instrumentation.dependencies import DependencyConflictError

# Imported module to module and class of OpenTelemetry's instrumentation. requests and most client libraries are built
# on urllib3; the outer of two instrumented ones makes the span.
INSTRUMENTORS = {
    "celery": "celery:CeleryInstrumentor",
    "httpx": "httpx:HTTPXClientInstrumentor",
    "psycopg": "psycopg:PsycopgInstrumentor",
    "psycopg2": "psycopg2:Psycopg2Instrumentor",
    "pymongo": "pymongo:PymongoInstrumentor",
    "pymysql": "pymysql:PyMySQLInstrumentor",
    "redis": "redis:RedisInstrumentor",
    "requests": "requests:RequestsInstrumentor",
    "urllib3": "urllib3:URLLib3Instrumentor",
}

MAX_STATEMENT_LENGTH = 2000
# Texts and numbers; a text that the limit cut off has no end. In MySQL "…" is a text, too (elsewhere a name), and \\
# escapes.
_NUMBER = r"(?<![\w$:%.])\d+(?:\.\d+)?(?!\w)"
_LITERALS = re.compile(rf"'(?:[^']|'')*(?:'|$)|{_NUMBER}")
_MYSQL_LITERALS = re.compile(rf"""(['"])(?:(?!\1)[^\\]|\\.|\1\1)*(?:\1|$)|{_NUMBER}""", re.DOTALL)

_prepared: set[str] = set()


def names() -> list[str]:
    """Return the import names of the libraries that are instrumented."""
    return sorted(_hooks())


def _hooks() -> dict[str, Callable[[ModuleType], None]]:
    own = {"sqlite3": _instrument_sqlite3, "sqlalchemy": _instrument_sqlalchemy}
    return {**dict.fromkeys(INSTRUMENTORS, _instrument), **own}


def instrument_clients() -> None:
    """Instrument each client library as soon as it is imported, once per process.

    A name in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, as OpenTelemetry's own launcher reads it, is left out.
    """
    disabled = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    for name, hook in _hooks().items():
        if not disabled & {name, "*"} and name not in _prepared:
            _prepared.add(name)
            wrapt.register_post_import_hook(_harmless(hook), name)


def _harmless(hook: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """Return `hook` so that it never fails the app's import."""

    def call(module: ModuleType) -> None:
        # The first instrumentation reads this; without it, the attributes have the names of before 2023.
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        try:
            hook(module)
        except DependencyConflictError as error:
            logger.warning(f"{module.__name__} is not traced: {error}")
        except Exception as error:  # noqa: BLE001  # whatever an instrumentation raises, the app runs without its spans
            logger.warning(f"{module.__name__} is not traced: {type(error).__name__}: {error}")

    return call


def _instrument(module: ModuleType) -> None:
    path, _, name = INSTRUMENTORS[module.__name__].partition(":")
    package = import_module(f"opentelemetry.instrumentation.{path}")
    instrumentor = getattr(package, name)()
    if instrumentor.is_instrumented_by_opentelemetry:
        return
    _mask_statements(package)
    _mask_statements(getattr(package, "dbapi", package))
    options = {"request_hook": _add_server_address} if module.__name__ == "urllib3" else {}
    instrumentor.instrument(raise_exception_on_conflict=True, **options)


def mask(statement: str, is_mysql: bool = False) -> str:
    """Return the first `MAX_STATEMENT_LENGTH` characters of an SQL statement with `?` for each text and number."""
    return (_MYSQL_LITERALS if is_mysql else _LITERALS).sub("?", statement[:MAX_STATEMENT_LENGTH])


def _mask_statements(module: ModuleType) -> None:
    """Mask what an instrumentation of databases records as statement; by default it has the literals of the app."""
    if hasattr(module, "CursorTracer") and module.__name__ not in _prepared:
        _prepared.add(module.__name__)
        wrapt.wrap_function_wrapper(module, "CursorTracer.get_statement", _get_masked)


def _get_masked(wrapped: Callable[..., Any], _: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    statement, driver = wrapped(*arguments, **options), arguments[0].__class__.__module__
    # psycopg2's `sql.SQL` is not a text.
    return mask(statement, driver.startswith("pymysql")) if isinstance(statement, str) else ""


def _add_server_address(span: trace.Span, pool: Any, _: object) -> None:
    # The instrumentation sets url.full only; a service graph needs the called host by itself.
    span.set_attribute("server.address", pool.host)
    if pool.port:
        span.set_attribute("server.port", pool.port)


def _is_instrumented(path: str, name: str) -> bool:
    """Tell whether the app has instrumented the library itself, by OpenTelemetry's package."""
    try:
        instrumentor = getattr(import_module(f"opentelemetry.instrumentation.{path}"), name)()
    except ImportError:
        return False
    return bool(instrumentor.is_instrumented_by_opentelemetry)


def _instrument_sqlite3(module: ModuleType) -> None:
    """Let connections have cursors that make a span for each statement.

    OpenTelemetry's instrumentation returns a proxy instead, which sqlite3's own functions refuse (`backup`), and misses
    `connection.execute()`, which Flask's tutorial uses.
    """
    from opentelemetry.instrumentation import dbapi

    if _is_instrumented("sqlite3", "SQLite3Instrumentor"):
        return
    _mask_statements(dbapi)

    class Tracer(dbapi.CursorTracer[Any]):
        def get_operation_name(self, cursor: Any, args: Any) -> str:
            # OpenTelemetry's raises IndexError for a statement of blanks.
            return str(super().get_operation_name(cursor, args)) if args and str(args[0]).strip() else ""

    sqlite3: Any = module
    tracer: Any = Tracer(dbapi.DatabaseApiIntegration("flask_vantage.sqlite3", "sqlite", {}))

    class Cursor(sqlite3.Cursor):  # type: ignore[misc]
        is_traced = True

        def execute(self, *arguments: Any) -> Any:
            return tracer.traced_execution(self, super().execute, *arguments)

        def executemany(self, *arguments: Any) -> Any:
            return tracer.traced_execution(self, super().executemany, *arguments)

        def executescript(self, *arguments: Any) -> Any:
            return tracer.traced_execution(self, super().executescript, *arguments)

    class Connection(sqlite3.Connection):  # type: ignore[misc]
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, *arguments: Any) -> Any:
            return self.cursor().execute(*arguments)

        def executemany(self, *arguments: Any) -> Any:
            return self.cursor().executemany(*arguments)

        def executescript(self, *arguments: Any) -> Any:
            return self.cursor().executescript(*arguments)

    def connect(wrapped: Callable[..., Any], _: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        # The sixth argument is `factory`: an app that has a class of its own keeps it.
        return wrapped(*arguments, **(options if len(arguments) > 5 else {"factory": Connection, **options}))

    for place in (sqlite3, sqlite3.dbapi2):
        wrapt.wrap_function_wrapper(place, "connect", connect)


def _instrument_sqlalchemy(module: ModuleType) -> None:
    """Make a span for each statement of a driver that has no instrumentation.

    The listeners are the class's, so that engines and connections from before are traced as well.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if _is_instrumented("sqlalchemy", "SQLAlchemyInstrumentor"):
        return
    tracer = trace.get_tracer("flask_vantage.sqlalchemy")

    def start(connection: Any, cursor: Any, statement: str, _: object, context: Any, __: bool) -> None:
        if context is None or _is_traced(cursor):
            return
        url = connection.engine.url
        system = connection.dialect.name
        attributes = {
            "db.system": system,
            "db.name": url.database,
            "db.statement": mask(statement, system in ("mysql", "mariadb")),
            "server.address": url.host,
            "server.port": url.port,
        }
        operation = statement.split(None, 1)[:1] or [system]
        context.vantage_span = tracer.start_span(
            operation[0],
            kind=trace.SpanKind.CLIENT,
            attributes={key: value for key, value in attributes.items() if value is not None},
        )

    def end(_: Any, __: Any, ___: str, ____: object, context: Any, _____: bool) -> None:
        if span := getattr(context, "vantage_span", None):
            span.end()

    def fail(error: Any) -> None:
        if span := getattr(error.execution_context, "vantage_span", None):
            cause = error.original_exception
            span.record_exception(cause)
            span.set_status(trace.StatusCode.ERROR, f"{type(cause).__name__}: {cause}")
            span.end()

    event.listen(Engine, "before_cursor_execute", start)
    event.listen(Engine, "after_cursor_execute", end)
    event.listen(Engine, "handle_error", fail)


def _is_traced(cursor: Any) -> bool:
    """Tell whether the driver's instrumentation makes a span for what this cursor executes."""
    kind = type(cursor)
    return (
        getattr(kind, "is_traced", False)
        or isinstance(cursor, wrapt.BaseObjectProxy)
        or any(base.__module__.startswith("opentelemetry.") for base in kind.__mro__)
    )
