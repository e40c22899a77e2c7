"""Errors as problem+json (RFC 9457), or as a small page for a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from flask import Flask, Response, has_request_context, json, request
from jinja2 import Environment, PackageLoader, Template
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

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

    def get_response(self, *args: Any, **kwargs: Any) -> Any:
        return problem_response(self)


def use_problem_details(app: Flask) -> None:
    """Answer HTTP errors that `app` leaves to werkzeug's own page as problem+json.

    In `make_response`, which gets an exception only if no handler answered it. A handler for HTTPException of our own
    would come before the app's handler for Exception, and replace one of another extension.
    """
    make_response = app.make_response

    def make_response_or_problem(rv: Any) -> Response:
        if isinstance(rv, HTTPException) and _has_default_body(rv):
            rv = problem_response(rv)
        return make_response(rv)

    app.make_response = make_response_or_problem  # type: ignore[method-assign]


def _has_default_body(error: HTTPException) -> bool:
    """Tell whether `error` is no redirect, no complete response and of no class with a body of its own."""
    kind, default = type(error), HTTPException
    own_body = (
        kind.get_response is not default.get_response
        or kind.get_body is not default.get_body
        or kind.get_description is not default.get_description
    )
    return error.response is None and (error.code or 0) >= 400 and not own_body


def problem_response(error: HTTPException) -> Response:
    """Return `error` as a response."""
    status = error.code or 500
    title = HTTP_STATUS_CODES.get(status, "Unknown Error")
    detail = _jsonable(error.description) or title
    if status == 500:
        # The reason is in the log, under the two ids; it may hold secrets.
        detail = "Internal error. Look for the trace id or the request id in the logs."
    members: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if isinstance(error, Problem):
        members.update((name, _jsonable(value)) for name, value in error.members.items())
    ids = {"trace_id": current_trace_id(), "request_id": current_request_id()}
    members.update((name, value) for name, value in ids.items() if value is not None)
    if _wants_html():
        response = Response(_page().render(problem=members), status=status)
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    else:
        response = Response(json.dumps(members) + "\n", status=status, content_type=CONTENT_TYPE)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _jsonable(value: Any) -> Any:
    """Return `value` if JSON has a form for it, else its text: apps pass exceptions, sets and translations."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value


@cache
def _page() -> Template:
    # Not by the app's own environment, whose context processors may fail as the view did.
    return Environment(loader=PackageLoader("flask_vantage"), autoescape=True).get_template("vantage/problem.html")


def _wants_html() -> bool:
    """Tell whether a browser asks: only a browser prefers text/html by name."""
    if not has_request_context():
        return False
    accept = request.accept_mimetypes
    html = accept.quality("text/html") if "text/html" in accept.values() else 0
    return html > max(accept.quality("application/json"), accept.quality(CONTENT_TYPE))
