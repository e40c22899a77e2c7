"""One flat JSON line per event on stdout, from loguru and from the standard library alike."""

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

from flask_vantage.context import current_request
from flask_vantage.writer import LineWriter

if TYPE_CHECKING:
    from loguru import Message, Record

# journald cuts a line at 48 KiB, and half a JSON object is no JSON. The bound leaves room for
# what wraps a line on its way.
MAX_LINE_BYTES = 40 * 1024
_MAX_MESSAGE_CHARS = 8 * 1024
_MAX_VALUE_CHARS = 2 * 1024
_MAX_STACKTRACE_CHARS = 16 * 1024

# What a caller's own field may not replace.
_OWN_FIELDS = frozenset(("timestamp", "level", "message", "logger", "service"))

_SECONDS_BETWEEN_REPEATS = 60.0


class JsonSink:
    """A loguru sink that writes each record as one line of JSON to the standard output."""

    def __init__(self, service: str, writer: LineWriter) -> None:
        self._service = service
        self._writer = writer

    def __call__(self, message: Message) -> None:
        self._writer.put(encode_line(self.fields(message.record)))

    def put(self, level: str, origin: str, message: str, extra: dict[str, Any]) -> None:
        """Write a line that has all its fields already."""
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
        """Return the flat fields of `record`, those that tell where it belongs first."""
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
    """Return `fields` as one line of JSON of at most `MAX_LINE_BYTES`, cut sensibly if need be."""
    line = _encode(fields)
    if len(line) <= MAX_LINE_BYTES:
        return line
    cut: dict[str, Any] = {key: _cut(key, value) for key, value in fields.items()}
    cut["truncated"] = True
    line = _encode(cut)
    # Many large fields of a caller's own: the largest go first, those of the contract stay.
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
        # A key that is no text, NaN, or a structure that contains itself.
        text = json.dumps({str(k): _plain(v) for k, v in fields.items()}, ensure_ascii=False)
    # A lone surrogate cannot be UTF-8; its backslash escape happens to be valid JSON.
    return text.encode("utf-8", "backslashreplace") + b"\n"


# Made once: json.dumps makes a new encoder at each call with options.
_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=lambda v: _text_of(v)
)


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
    """Cut the middle out: a stack trace tells most at its two ends."""
    if len(text) <= length:
        return text
    head, tail = length // 4, length - length // 4
    return f"{text[:head]}\n… {len(text) - length} characters cut …\n{text[-tail:]}"


class InterceptHandler(logging.Handler):
    """Hands the standard library's log records to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - wrong arguments to a log call must not raise in the app
            message = f"{record.msg!r} {record.args!r}"

        def name_the_origin(loguru_record: Record) -> None:
            loguru_record["name"] = record.name

        logger.patch(name_the_origin).opt(depth=_caller_depth(), exception=record.exc_info).log(
            level, "{}", message
        )


def _caller_depth() -> int:
    depth = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (depth == 0 or frame.f_code.co_filename == logging.__file__):
        frame = frame.f_back
        depth += 1
    return depth


class RepeatFilter(logging.Filter):
    """Lets a message of one logger through once a minute.

    The OpenTelemetry exporter warns at each retry; with a dead collector that is each second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now < self._next.get(key, 0.0):
            return False
        self._next[key] = now + _SECONDS_BETWEEN_REPEATS
        return True


_handler_id: int | None = None
_sink: JsonSink | None = None
_level_number = 0
_writer: LineWriter | None = None
_intercept = InterceptHandler()


def line_writer() -> LineWriter:
    """Return the process's writer of lines, started when first asked for."""
    global _writer
    if _writer is None:
        _writer = LineWriter()
    return _writer


def flush(timeout: float = 2.0) -> bool:
    """Write what is queued; return False when the standard output did not take it in time."""
    return _writer is None or _writer.flush(timeout)


def log_complete(level: str, origin: str, message: str, fields: dict[str, Any]) -> None:
    """Log a line that has all its fields, past loguru when nobody could tell the difference.

    Looking up the caller, the time zone, process and thread costs loguru more than all the rest of
    an access line, and that line needs none of it. Loguru gets the line as soon as the application
    has a sink, a patcher, extra fields or a disabled logger of its own.
    """
    core = getattr(logger, "_core", None)
    if (
        _sink is not None
        and core is not None
        and len(core.handlers) == 1
        and _handler_id in core.handlers
        and core.patcher is None
        and not core.extra
        and not core.activation_list
    ):
        if logger.level(level.upper()).no >= _level_number:
            _sink.put(level, origin, message, fields)
        return

    def name_the_origin(record: Record) -> None:
        record["name"] = origin

    # No arguments, so braces in the message are no placeholders.
    logger.bind(**fields).patch(name_the_origin).log(level.upper(), message)


def configure(service: str, level: str) -> None:
    """Send loguru's and the standard library's records to stdout as JSON.

    Sinks that the application has added itself stay. May be called again.
    """
    global _handler_id, _level_number, _sink
    for handler_id in (0, _handler_id):
        if handler_id is not None:
            # Someone may have removed it before us.
            with contextlib.suppress(ValueError):
                logger.remove(handler_id)
    _sink = JsonSink(service, line_writer())
    _level_number = logger.level(level).no
    _handler_id = logger.add(
        _sink,
        level=level,
        format=_no_format,
        backtrace=False,
        diagnose=False,
    )
    root = logging.getLogger()
    for handler in list(root.handlers):
        # basicConfig's handler would print every record a second time.
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
            root.removeHandler(handler)
    if _intercept not in root.handlers:
        root.addHandler(_intercept)
    root.setLevel(_level_number)
    logging.captureWarnings(True)
    _calm_noisy_loggers()


def _calm_noisy_loggers() -> None:
    # Werkzeug's development server has an access line of its own.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # One line for each request that waits for a thread: under load the last thing that helps.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    # Each export of spans would log a line that belongs to no request.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    # CountingExporter tells about a dead collector, with what to do.
    for name in (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.exporter.otlp.common.http",
        "opentelemetry.sdk._shared_internal",
    ):
        exporter_logger = logging.getLogger(name)
        if not any(isinstance(f, RepeatFilter) for f in exporter_logger.filters):
            exporter_logger.addFilter(RepeatFilter())


def _no_format(_: Record) -> str:
    # The sink reads the record itself, so loguru need not format anything.
    return ""
