"""What is known about the request that is being answered."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry.trace import Span

# Letters, digits and the punctuation of UUIDs, ULIDs and the like; the bound keeps a client from
# filling the log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}", re.ASCII)


@dataclass(slots=True)
class RequestState:
    """One request, from its arrival to its access line."""

    method: str
    path: str
    client_address: str | None
    request_id: str
    started: float
    quiet: bool
    span: Span | None = None
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    route: str | None = None
    status: int = 500
    complete: bool = False
    exception: BaseException | None = None


current_request: ContextVar[RequestState | None] = ContextVar("vantage_request", default=None)


def choose_request_id(given: str | None) -> str:
    """Return the client's request id when it is well-formed, else a new one."""
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)


def current_request_id() -> str | None:
    """Return the id of the request that this thread is answering."""
    state = current_request.get()
    return state.request_id if state else None


def current_trace_id() -> str | None:
    """Return the trace id of the request that this thread is answering, as 32 hex digits."""
    state = current_request.get()
    return state.trace_id if state else None
