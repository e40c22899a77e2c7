"""The access line: exactly one per request, with the exception in it when there was one."""

from __future__ import annotations

from typing import Any

from flask_vantage.context import RequestState
from flask_vantage.logs import exception_fields, log_complete
from flask_vantage.metrics import UNMATCHED_ROUTE, method_label


def log_request(state: RequestState, seconds: float) -> None:
    """Write the line of a finished request.

    The level is error for 5xx, debug for probes and scrapes, info for all the rest: a 4xx is the
    client's mistake, and warnings that any scanner can cause would hide the real ones.
    """
    failed = state.status >= 500 or state.exception is not None
    # The order is that of reading: what happened, then where it belongs.
    fields: dict[str, Any] = {
        "trace_id": state.trace_id,
        "span_id": state.span_id,
        "request_id": state.request_id,
        "http_request_method": method_label(state.method),
        "http_route": state.route or UNMATCHED_ROUTE,
        "url_path": state.path,
        "http_response_status_code": state.status,
        "duration_ms": round(seconds * 1000, 3),
        "client_address": state.client_address,
    }
    if state.exception is not None:
        fields.update(exception_fields(state.exception))
    # A failing probe is expected while the server stops, and health.py says why otherwise.
    if state.quiet and state.exception is None:
        level = "debug"
    elif failed:
        level = "error"
    else:
        level = "info"
    message = f"{state.method} {state.path} {state.status}"
    log_complete(level, __name__, message, fields)
