"""Every error as problem+json (RFC 9457), or as a small page for a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from flask import Flask, Response, json, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response as WerkzeugResponse

from flask_vantage.context import current_request_id, current_trace_id

CONTENT_TYPE = "application/problem+json"


class Problem(HTTPException):
    """An error to raise from a view.

    `errors` names each field that is wrong: `{"field": "quantity", "detail": "must be …"}`.
    `headers` are added to the response, e.g. `{"Retry-After": "1"}`.
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


def register(app: Flask) -> None:
    """Answer every HTTP error of `app` with a problem.

    Handlers that the app registers for single errors keep the precedence Flask gives them.
    """
    app.register_error_handler(HTTPException, problem_response)


def problem_response(error: HTTPException) -> WerkzeugResponse:
    """Return `error` as a response; redirects and ready-made responses pass unchanged."""
    if error.response is not None:
        return cast(WerkzeugResponse, error.response)
    status = error.code or 500
    if status < 400:
        return error.get_response()
    title = HTTP_STATUS_CODES.get(status, "Unknown Error")
    detail = error.description or title
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        # Whatever went wrong stays in the log, where the two ids lead.
        detail = "The server failed to answer. The trace id and the request id tell where to look."
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if isinstance(error, Problem):
        members.update(error.members)
    if (trace_id := current_trace_id()) is not None:
        members["trace_id"] = trace_id
    if (request_id := current_request_id()) is not None:
        members["request_id"] = request_id
    if _wants_html():
        response = Response(render_template("vantage/problem.html", problem=members), status=status)
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'"
        )
    else:
        response = Response(json.dumps(members) + "\n", status=status, content_type=CONTENT_TYPE)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _wants_html() -> bool:
    """Tell a browser's navigation from a program: only a browser prefers HTML by name."""
    accept = request.accept_mimetypes
    html = accept.quality("text/html") if "text/html" in accept.values() else 0
    return html > max(accept.quality("application/json"), accept.quality(CONTENT_TYPE))
