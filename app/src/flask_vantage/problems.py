"""Errors as problem+json (RFC 9457), or as a small page for a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from flask import Response, json, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response as WerkzeugResponse

from flask_vantage.context import current_request_id, current_trace_id

CONTENT_TYPE = "application/problem+json"


class Problem(HTTPException):
    """An error response to raise from a view, as problem+json of https://www.rfc-editor.org/rfc/rfc9457.

    `status` is the HTTP status code (400 to 599), `detail` a sentence for the client. `errors` has one mapping for each
    invalid field: `{"field": "quantity", "detail": "must be 1 to 100"}`. `headers` are added to the response, e.g.
    `{"Retry-After": "1"}` (seconds), and further `members` to the body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.code = status
        self.members: dict[str, Any] = dict(members)
        if errors:
            self.members["errors"] = [dict(error) for error in errors]
        self._headers = dict(headers or {})

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), *self._headers.items()]


def problem_response(error: HTTPException) -> WerkzeugResponse:
    """Return `error` as a response; redirects and complete responses pass unchanged."""
    if error.response is not None:
        return cast(WerkzeugResponse, error.response)
    status = error.code or 500
    if status < 400:
        return error.get_response()
    title = HTTP_STATUS_CODES.get(status, "Unknown Error")
    detail = error.description or title
    if status == 500:
        # The reason is in the log, under the two ids; it may hold secrets.
        detail = "Internal error. Look for the trace id or the request id in the logs."
    members: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if isinstance(error, Problem):
        members.update(error.members)
    ids = {"trace_id": current_trace_id(), "request_id": current_request_id()}
    members.update((name, value) for name, value in ids.items() if value is not None)
    if _wants_html():
        response = Response(render_template("vantage/problem.html", problem=members), status=status)
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    else:
        response = Response(json.dumps(members) + "\n", status=status, content_type=CONTENT_TYPE)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _wants_html() -> bool:
    """Tell whether a browser asks: only a browser prefers text/html by name."""
    accept = request.accept_mimetypes
    html = accept.quality("text/html") if "text/html" in accept.values() else 0
    return html > max(accept.quality("application/json"), accept.quality(CONTENT_TYPE))
