"""One flat JSON line per event on stdout, from loguru and from the logging module."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from loguru import logger
from opentelemetry import trace

from flask_vantage import _private
from flask_vantage.context import current_request
from flask_vantage.writer import LineWriter

if TYPE_CHECKING:
    from loguru import Message, Record

# journald cuts a line at 48 KiB, and half an object is not valid JSON. The limit leaves room for what wraps a line.
MAX_LINE_BYTES = 40 * 1024
_MAX_MESSAGE_CHARS = 8 * 1024
_MAX_VALUE_CHARS = 2 * 1024
_MAX_STACKTRACE_CHARS = 16 * 1024

# Fields that a caller's own field must not replace.
_OWN_FIELDS = frozenset(("timestamp", "level", "message", "logger", "service"))

_REPEATING_LOGGERS = ("opentelemetry.exporter.", "opentelemetry.sdk.")
_SECONDS_BETWEEN_REPEATS = 60.0


class JsonSink:
    """A loguru sink that writes each record as one line of JSON to the standard output."""

    def __init__(self, service: str, writer: LineWriter) -> None:
        self._service = service
        self._writer = writer

    def __call__(self, message: Message) -> None:
        self._writer.put(encode_line(self.fields(message.record)))

    def put(self, level: str, origin: str, message: str, extra: dict[str, Any]) -> None:
        """Write a line from complete fields."""
        fields = {
            "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
            "level": level,
            "message": message,
            "logger": origin,
            "service": self._service,
            **extra,
        }
        self._writer.put(encode_line(fields))

    def fields(self, record: Record) -> dict[str, Any]:
        """Return the flat fields of `record`; the ids come before the caller's own fields."""
        extra = record["extra"]
        level = record["level"].name.lower()
        fields: dict[str, Any] = {
            "timestamp": record["time"].astimezone(UTC).isoformat(timespec="microseconds"),
            "level": "info" if level == "success" else level,
            "message": record["message"],
            "logger": record["name"],
            "service": self._service,
        }
        if "trace_id" not in extra:
            context = trace.get_current_span().get_span_context()
            if context.is_valid:
                fields["trace_id"] = f"{context.trace_id:032x}"
                fields["span_id"] = f"{context.span_id:016x}"
            request = current_request.get()
            if request is not None:
                fields["request_id"] = request.request_id
        for key, value in extra.items():
            fields[f"extra_{key}" if key in _OWN_FIELDS else key] = value
        exception = record["exception"]
        if exception is not None and exception.value is not None:
            fields.update(exception_fields(exception.value))
        return fields


def exception_fields(error: BaseException) -> dict[str, str]:
    """Return type, message and full stack trace of `error`, its causes included."""
    kind = type(error)
    name = kind.__qualname__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not lose the event
        text = "<unprintable>"
    return {
        "exception_type": name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}",
        "exception_message": text,
        "exception_stacktrace": "".join(traceback.format_exception(error)),
    }


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Return `fields` as one line of JSON of at most `MAX_LINE_BYTES` bytes; long values are shortened."""
    line = _encode(fields)
    if len(line) <= MAX_LINE_BYTES:
        return line
    cut: dict[str, Any] = {key: _cut(key, value) for key, value in fields.items()}
    cut["truncated"] = True
    line = _encode(cut)
    # Many large fields of the caller: drop the largest first, keep message and exception.
    while len(line) > MAX_LINE_BYTES:
        largest = max(cut, key=lambda key: len(_encode({key: cut[key]})))
        if largest in ("message", "exception_stacktrace", "exception_message"):
            cut[largest] = _shorten(str(cut[largest]), len(str(cut[largest])) // 2)
        else:
            del cut[largest]
        line = _encode(cut)
    return line


def _encode(fields: Mapping[str, Any]) -> bytes:
    try:
        text = _encoder.encode(fields)
    except (TypeError, ValueError, RecursionError):
        # A key that is not a string, NaN, or a structure that contains itself.
        text = json.dumps({str(k): _plain(v) for k, v in fields.items()}, ensure_ascii=False)
    # A lone surrogate cannot be UTF-8; its backslash escape happens to be valid JSON.
    return text.encode("utf-8", "backslashreplace") + b"\n"


# json.dumps creates a new encoder at each call with options.
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=lambda v: _text_of(v))


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    return _text_of(value)


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - as above
        return "<unprintable>"


def _cut(key: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else _encode({"": value})[5:-2].decode()
    if key == "exception_stacktrace":
        return _shorten(text, _MAX_STACKTRACE_CHARS)
    return _shorten(text, _MAX_MESSAGE_CHARS if key == "message" else _MAX_VALUE_CHARS)


def _shorten(text: str, length: int) -> str:
    """Cut out the middle: the two ends of a stack trace are the most useful."""
    if len(text) <= length:
        return text
    head, tail = length // 4, length - length // 4
    return f"{text[:head]}\n… {len(text) - length} characters cut …\n{text[-tail:]}"


class InterceptHandler(logging.Handler):
    """Passes records of the logging module to loguru.

    A log call of OpenTelemetry's exporters and SDK passes once a minute: they warn at each retry, which with a dead
    collector is each second. `CountingExporter` reports a dead collector.
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
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - invalid arguments of a log call must not raise in the app
            message = f"{record.msg!r} {record.args!r}"

        def set_logger_name(loguru_record: Record) -> None:
            loguru_record["name"] = record.name

        logger.patch(set_logger_name).opt(depth=_caller_depth(), exception=record.exc_info).log(level, "{}", message)


def _caller_depth() -> int:
    depth = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (depth == 0 or frame.f_code.co_filename == logging.__file__):
        frame = frame.f_back
        depth += 1
    return depth


_handler_id: int | None = None
_sink: JsonSink | None = None
_level_number = 0
_writer: LineWriter | None = None
_intercept = InterceptHandler()


def line_writer() -> LineWriter:
    """Return the process's line writer; the first call starts it."""
    global _writer
    if _writer is None:
        _writer = LineWriter()
    return _writer


def flush(timeout: float = 2.0) -> bool:
    """Write the queued lines; returns False when stdout did not take them within `timeout` seconds."""
    return _writer is None or _writer.flush(timeout)


def log_access(level: str, origin: str, message: str, fields: dict[str, Any]) -> None:
    """Log a line with complete fields, bypassing loguru when that makes no visible difference.

    Looking up caller, time zone, process and thread costs loguru more than the rest of an access line, which needs
    none of them.
    """
    if _sink is not None and _private.loguru_has_only(_handler_id):
        if logger.level(level.upper()).no >= _level_number:
            _sink.put(level, origin, message, fields)
        return

    def set_logger_name(record: Record) -> None:
        record["name"] = origin

    # Without arguments, braces in the message are not placeholders.
    logger.bind(**fields).patch(set_logger_name).log(level.upper(), message)


def configure(service: str, level: str) -> None:
    """Send the records of loguru and of the logging module to stdout as JSON.

    The application's own sinks stay. `service` is that of the process: the last call decides, so two apps in one
    process share it.
    """
    global _handler_id, _level_number, _sink
    for handler_id in (0, _handler_id):
        if handler_id is not None:
            # The application may have removed it already.
            with contextlib.suppress(ValueError):
                logger.remove(handler_id)
    _sink = JsonSink(service, line_writer())
    _level_number = logger.level(level).no
    # The sink reads the record itself, so loguru need not format it.
    _handler_id = logger.add(_sink, level=level, format=lambda _: "", backtrace=False, diagnose=False)
    root = logging.getLogger()
    for handler in list(root.handlers):
        # basicConfig's handler would print every record a second time.
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
            root.removeHandler(handler)
    if _intercept not in root.handlers:
        root.addHandler(_intercept)
    root.setLevel(_level_number)
    logging.captureWarnings(True)
    # Werkzeug's development server has an access line of its own.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # One line for each request that waits for a thread makes an overload worse.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    # Each export of spans would log a line that belongs to no request.
    logging.getLogger("urllib3").setLevel(logging.INFO)
