"""One flat JSON line per event, from loguru and from the logging module."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import flask.app
from flask.cli import ScriptInfo
from loguru import logger
from opentelemetry import trace

from flask_vantage import _private
from flask_vantage.context import current_request
from flask_vantage.writer import LineWriter, write_to_stderr, write_to_stdout

if TYPE_CHECKING:
    from loguru import Message

# journald cuts a line at 48 KiB, and half an object is not valid JSON. The limit leaves room for what wraps a line.
MAX_LINE_BYTES = 40 * 1024

# Fields that a caller's own field must not replace.
_OWN_FIELDS = frozenset(("timestamp", "level", "message", "logger", "service"))

# The `logger` of access lines.
ACCESS_LOGGER = "flask_vantage.access"

# What a record has without the caller's `extra`. Formatters add the last two; taskName is there since Python 3.12.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_REPEATING_LOGGERS = ("opentelemetry.",)
_SECONDS_BETWEEN_REPEATS = 60.0


class JsonSink:
    """A loguru sink that writes each record as one line of JSON."""

    def __init__(self, service: str, writer: LineWriter) -> None:
        self._service = service
        self._writer = writer

    def __call__(self, message: Message) -> None:
        record = message.record
        extra = record["extra"]
        fields: dict[str, Any] = {}
        # An access line has its ids in `extra`; it may be written after its request.
        if record["name"] != ACCESS_LOGGER:
            context = trace.get_current_span().get_span_context()
            if context.is_valid:
                fields["trace_id"] = f"{context.trace_id:032x}"
                fields["span_id"] = f"{context.span_id:016x}"
            request = current_request.get()
            if request is not None:
                fields["request_id"] = request.request_id
        exception = record["exception"]
        if exception is not None and exception.value is not None:
            fields.update(exception_fields(exception.value))
        for key, value in extra.items():
            fields[f"extra_{key}" if key in _OWN_FIELDS or key in fields else key] = value
        level = record["level"].name.lower()
        level = "info" if level == "success" else level
        self.put(record["time"].astimezone(UTC), level, record["name"], record["message"], fields)

    def put(self, time: datetime, level: str, origin: str | None, message: str, fields: dict[str, Any]) -> None:
        """Write a line; `time` is in UTC."""
        line = {
            "timestamp": time.isoformat(timespec="microseconds"),
            "level": level,
            "message": message,
            "logger": origin,
            "service": self._service,
            **fields,
        }
        self._writer.put(encode_line(line))


def exception_fields(error: BaseException) -> dict[str, str]:
    """Return type, message and full stack trace of `error`, its causes included."""
    kind = type(error)
    name = kind.__qualname__
    return {
        "exception_type": name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}",
        "exception_message": _text(error),
        "exception_stacktrace": "".join(traceback.format_exception(error)),
    }


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Return `fields` as one line of JSON of at most `MAX_LINE_BYTES` bytes; long values are shortened."""
    line = _encode(fields)
    limit = MAX_LINE_BYTES
    while len(line) > MAX_LINE_BYTES:
        limit //= 2
        # Fewer fields as well, since a caller may add thousands; Vantage's own come first.
        kept = itertools.islice(fields.items(), limit)
        line = _encode({_text(key)[:limit]: _shorten(value, limit) for key, value in kept} | {"truncated": True})
    return line


def _encode(fields: Mapping[str, Any]) -> bytes:
    try:
        text = _encoder.encode(fields)
    except (TypeError, ValueError, RecursionError):
        # NaN, a key that is not a string, or a structure that contains itself.
        plain = {_text(k): v if v is None or isinstance(v, int | str) else _text(v) for k, v in fields.items()}
        text = _encoder.encode(plain)
    # A lone surrogate cannot be UTF-8; its backslash escape happens to be valid JSON.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not lose the line
        return "<unprintable>"


# json.dumps creates a new encoder at each call with options.
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_text)


def _shorten(value: object, length: int) -> object:
    """Cut out the middle of a text: the two ends of a stack trace are the most useful."""
    if value is None or isinstance(value, int | float):
        return value
    text = _text(value)
    if len(text) <= length:
        return text
    head, tail = length // 4, length - length // 4
    return f"{text[:head]}\n… {len(text) - length} characters cut …\n{text[-tail:]}"


class InterceptHandler(logging.Handler):
    """Passes records of the logging module to loguru, with the fields of `extra`.

    A log call of OpenTelemetry passes once a minute: the exporters warn at each retry, which with a dead collector is
    each second, and `CountingExporter` reports that; the propagators warn at each malformed header.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_REPEATING_LOGGERS):
            key, now = (record.pathname, record.lineno), time.monotonic()
            if now < self._next.get(key, 0.0):
                return
            self._next[key] = now + _SECONDS_BETWEEN_REPEATS
        if _is_in_access_line(record):
            return
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - invalid arguments of a log call must not raise in the app
            message = f"{record.msg!r} {record.args!r}"

        extra = {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}
        if record.stack_info:
            extra["stack_info"] = record.stack_info
        origin: Any = {"name": record.name, "function": record.funcName, "line": record.lineno}
        patched = logger.bind(**extra).patch(lambda line: line.update(origin)).opt(exception=record.exc_info)
        patched.log(level, "{}", message)


def _is_in_access_line(record: logging.LogRecord) -> bool:
    """Tell whether `record` is Flask's own line about an exception, and let the access line have the exception.

    Flask's line goes to the app's own handlers as ever. A line of the app's own `log_exception` is another one.
    """
    if record.exc_info is None or record.funcName != "log_exception" or record.pathname != flask.app.__file__:
        return False
    state, error = current_request.get(), record.exc_info[1]
    if state is None or error is None or state.exception not in (None, error):
        return False
    state.exception = error
    return True


_handler_id: int | None = None
_sink: JsonSink | None = None
_level_number = 0
_root_level = logging.WARNING
_app_loggers: set[str] = set()
_writer: LineWriter | None = None
_intercept = InterceptHandler()


def line_writer() -> LineWriter:
    """Return the process's line writer; the first call starts it.

    It writes to stderr where others read stdout: a command of `flask`, whose output may go into a file, and pytest.
    """
    global _writer
    if _writer is None:
        context = click.get_current_context(silent=True)
        is_command = context is not None and context.find_object(ScriptInfo) is not None
        _writer = LineWriter(write_to_stderr if is_command or "pytest" in sys.modules else write_to_stdout)
    return _writer


def flush(timeout: float = 2.0) -> bool:
    """Write the queued lines; returns False when the stream did not take them within `timeout` seconds."""
    return _writer is None or _writer.flush(timeout)


def log_access(level: str, origin: str, message: str, fields: dict[str, Any]) -> None:
    """Log a line with complete fields, bypassing loguru when that makes no visible difference.

    Looking up caller, time zone, process and thread costs loguru more than the rest of an access line, which needs
    none of them.
    """
    if _sink is not None and _private.loguru_has_only(_handler_id):
        if logger.level(level.upper()).no >= _level_number:
            _sink.put(datetime.now(UTC), level, origin, message, fields)
        return
    # Without arguments, braces in the message are not placeholders.
    logger.bind(**fields).patch(lambda record: record.update({"name": origin})).log(level.upper(), message)


def configure(service: str, level: str, app_logger: str) -> None:
    """Write the records of loguru and of the logging module as JSON; `app_logger` is the name of `app.logger`.

    The application's own sinks and handlers stay, but for those that write to the console. `service` is that of the
    process: the last call decides, so two apps in one process share it.
    """
    global _handler_id, _level_number, _root_level, _sink
    for handler_id in (0, _handler_id):
        if handler_id is not None:
            # The application may have removed it already.
            with contextlib.suppress(ValueError):
                logger.remove(handler_id)
    _sink = JsonSink(service, line_writer())
    _level_number = logger.level(level).no
    # The sink reads the record itself, so loguru need not format it.
    _handler_id = logger.add(_sink, level=level, format=lambda _: "", backtrace=False, diagnose=False)
    _app_loggers.add(app_logger)
    attach()
    root = logging.getLogger()
    # A level that the application has chosen stays; the sink has its own.
    if root.level in (logging.WARNING, _root_level):
        _root_level = _level_number
        root.setLevel(_level_number)
    logging.captureWarnings(True)
    # Werkzeug's development server has an access line of its own.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # One line for each request that waits for a thread makes an overload worse.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    # Each export of spans would log a line that belongs to no request.
    logging.getLogger("urllib3").setLevel(logging.INFO)


def attach() -> None:
    """Take over what the logging module writes to the console, which would be a second line without ids.

    Called again at the first request, because the application's dictConfig detaches the handler and adds its own. A
    server's own loggers, which do not propagate, stay as they are.
    """
    root = logging.getLogger()
    if _intercept not in root.handlers:
        root.addHandler(_intercept)
    for found in [root, *root.manager.loggerDict.values()]:
        if not isinstance(found, logging.Logger):
            continue
        last = _last_logger(found)
        # By name: creating the app's logger here would let a later dictConfig disable it.
        if last is not root and not any(f"{name}.".startswith(f"{found.name}.") for name in _app_loggers):
            continue
        for handler in [handler for handler in found.handlers if _writes_to_console(handler)]:
            found.removeHandler(handler)
            if _intercept not in last.handlers:
                last.addHandler(_intercept)


def _writes_to_console(handler: logging.Handler) -> bool:
    # Flask's default handler has a proxy, which compares equal to the stream it stands for.
    return type(handler) is logging.StreamHandler and any(
        handler.stream == stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    )


def _last_logger(found: logging.Logger) -> logging.Logger:
    """Return the last logger that gets the records of `found`."""
    while found.propagate and found.parent is not None:
        found = found.parent
    return found
