"""The WSGI middleware that answers probes and scrapes before the app's own hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING

from flask import Flask, Response
from loguru import logger
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_vantage.context import current_request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Returns the response to a GET of one path.
Answer = Callable[["WSGIEnvironment"], Response]

METHODS = ("GET", "HEAD")
_MAX_WRAPPERS = 20


class EndpointMiddleware:
    """Answers GET and HEAD of the paths in `answers`; a route of `app` with exactly that path is left alone.

    A login, a redirect to HTTPS, a rate limit or a check of the host would make a healthy app look down and its
    metrics disappear, so these requests do not reach Flask.
    """

    def __init__(self, app: Flask, answers: Mapping[str, Answer]) -> None:
        self._flask = app
        self._app: WSGIApplication = app.wsgi_app
        self._answers = dict(answers)
        self._lock = Lock()
        self._is_checked = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self._is_checked:
            self._leave_own_routes()
        answer = self._answers.get(environ.get("PATH_INFO", ""))
        if answer is None or environ["REQUEST_METHOD"] not in METHODS:
            return self._app(environ, start_response)
        if (state := current_request.get()) is not None:
            state.is_complete = True
        return answer(environ)(environ, start_response)

    def _leave_own_routes(self) -> None:
        # At the first request, because routes are added after the extension.
        with self._lock:
            if self._is_checked:
                return
            own = self._answers.keys() & {*_routes(self._flask), *_mounts(self._app)}
            for path in sorted(own):
                del self._answers[path]
                logger.info("The app's own route answers {}, not Vantage's.", path)
            self._is_checked = True


def _routes(app: Flask) -> Iterator[str]:
    for rule in app.url_map.iter_rules():
        if rule.methods is None or "GET" in rule.methods:
            yield rule.rule


def _mounts(app: object) -> Iterator[str]:
    """Return the paths that a DispatcherMiddleware of `app` mounts, as prometheus_client's guide for Flask does."""
    for _ in range(_MAX_WRAPPERS):
        if isinstance(app, DispatcherMiddleware):
            yield from app.mounts
        # The attribute of werkzeug's middlewares.
        app = getattr(app, "app", None)
