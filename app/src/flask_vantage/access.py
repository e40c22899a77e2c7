"""The access line: one per request, with the exception if one was raised."""

from __future__ import annotations

from typing import Any

from flask_vantage.context import RequestState
from flask_vantage.logs import exception_fields, log_access
from flask_vantage.metrics import UNMATCHED_ROUTE, method_label


def log_request(state: RequestState, seconds: float) -> None:
    """Write the access line of a finished request that took `seconds`.

    The level is error for 5xx, debug for probes and scrapes, else info: a 4xx is the client's error, and warnings
    that any scanner can cause would hide the real ones.
    """
    failed = state.status >= 500 or state.exception is not None
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
    # A failing probe is expected while the server stops; otherwise health.py logs the reason.
    if state.quiet and state.exception is None:
        level = "debug"
    elif failed:
        level = "error"
    else:
        level = "info"
    message = f"{state.method} {state.path} {state.status}"
    log_access(level, __name__, message, fields)
