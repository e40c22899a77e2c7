"""The state of the current request."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import INVALID_SPAN, Span

# Letters, digits and the punctuation of UUIDs, ULIDs and similar; the limit keeps a client from filling the log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}", re.ASCII)


@dataclass(slots=True)
class RequestState:
    """One request, from its arrival to its access line."""

    method: str
    # `method`, or one value for all that are unknown.
    method_label: str
    path: str
    environ: Mapping[str, Any]
    client_address: str | None
    request_id: str
    started: float
    quiet: bool
    span: Span = INVALID_SPAN
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    route: str | None = None
    status: int = 500
    # The body exists already; otherwise it is generated while it is sent.
    is_complete: bool = False
    # What the app's own handler or Flask answered; an error only if the answer is a 5xx.
    handled: BaseException | None = None
    # What made the request fail.
    exception: BaseException | None = None


current_request: ContextVar[RequestState | None] = ContextVar("vantage_request", default=None)


def choose_request_id(given: str | None) -> str:
    """Return the client's request id if it is well-formed, else a new one of 32 hex digits."""
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)


def current_request_id() -> str | None:
    """Return the current request's id (1 to 128 characters), or None outside a request."""
    state = current_request.get()
    return state.request_id if state else None


def current_trace_id() -> str | None:
    """Return the current request's trace id as 32 hex digits, or None without a trace."""
    state = current_request.get()
    return state.trace_id if state else None
