"""The Flask extension `Vantage`."""

from __future__ import annotations

from typing import Any

from flask import Flask, got_request_exception, request
from prometheus_client import REGISTRY, CollectorRegistry
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from flask_vantage import _private, clients, logs, problems, tracing
from flask_vantage.context import current_request
from flask_vantage.endpoints import Answer, EndpointMiddleware
from flask_vantage.health import Health, ReadinessCheck
from flask_vantage.metrics import Metrics, metrics_of
from flask_vantage.middleware import TelemetryMiddleware
from flask_vantage.settings import ALIVE_PATH, METRICS_PATH, READY_PATH, Settings


class Vantage:
    """Adds metrics, traces, JSON logs and health endpoints to a Flask app, and changes none of its answers.

    Use `Vantage(app)`, or `Vantage()` and `init_app(app)` later. `settings` default to those of the environment,
    `registry` (what `/metrics` shows) to prometheus_client's default registry. With `problem_details`, HTTP errors that
    the app does not handle are problem+json. Raises `SettingsError` for an invalid setting. Logging and the tracer
    provider belong to the process: with two apps in one process, log lines carry the service name of the last app,
    spans that of the first.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        settings: Settings | None = None,
        registry: CollectorRegistry = REGISTRY,
        problem_details: bool = False,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._problem_details = problem_details
        self.health = Health()
        # None without telemetry.
        self.metrics: Metrics | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up `app`; raises RuntimeError for an app that has a `Vantage` already."""
        if "vantage" in app.extensions:
            raise RuntimeError(f"Vantage is already set up: app {app.name!r}. Remove the second call.")
        settings = self._settings or Settings.from_environment()
        app.extensions["vantage"] = self
        self.settings = settings
        if self._problem_details:
            problems.use_problem_details(app)
        answers: dict[str, Answer] = {
            ALIVE_PATH: lambda _: self.health.alive(),
            READY_PATH: lambda _: self.health.ready(app),
        }
        if settings.telemetry:
            self._set_up_telemetry(app, settings, answers)
        else:
            app.wsgi_app = EndpointMiddleware(app, answers)  # type: ignore[method-assign]

    def add_readiness_check(self, name: str, check: ReadinessCheck) -> None:
        """Make `/readyz` answer 503 while `check` raises or returns False; raises ValueError for a taken name.

        The check runs in the app's context and must limit its own time. Check what only this process needs: a check of
        a shared service takes out all its users at once.
        """
        if name in self.health.checks:
            raise ValueError(f"duplicate readiness check: {name!r}. Use another name.")
        self.health.checks[name] = check

    def _set_up_telemetry(self, app: Flask, settings: Settings, answers: dict[str, Answer]) -> None:
        service = settings.service_name or app.name
        logs.configure(service, settings.log_level, app.name)
        metrics = self.metrics = metrics_of(self._registry)
        logs.line_writer().count_dropped = metrics.log_lines_dropped.inc
        provider = tracing.obtain_provider(settings, metrics, service)
        clients.instrument_clients()
        answers[METRICS_PATH] = lambda environ: metrics.response(environ.get("HTTP_ACCEPT", ""))
        tracer, quiet_paths = provider.get_tracer("flask_vantage"), frozenset(answers)
        endpoints = EndpointMiddleware(app, answers)
        app.wsgi_app = TelemetryMiddleware(endpoints, metrics, tracer, quiet_paths)  # type: ignore[method-assign]
        _observe(app)
        got_request_exception.connect(_record_exception, app)


def _observe(app: Flask) -> None:
    """Record the route, whether the body exists already, and the exceptions that the app's handlers answer.

    By methods that Flask lets an app override, instead of hooks: a hook runs late or not at all when another one ends
    the request.
    """
    dispatch, handle, fail = app.full_dispatch_request, app.handle_user_exception, app.handle_exception
    is_complete = _private.is_complete

    def full_dispatch_request(*args: Any) -> Response:
        state, rule = current_request.get(), request.url_rule
        if state is None:
            return dispatch(*args)
        if rule is not None:
            state.route = rule.rule
        response = dispatch(*args)
        state.is_complete = is_complete(response)
        return response

    def handle_exception(*args: Any) -> Response:
        response = fail(*args)
        if (state := current_request.get()) is not None:
            state.is_complete = is_complete(response)
        return response

    def handle_user_exception(*args: Any) -> Any:
        state, error = current_request.get(), args[-1]
        if state is not None and not isinstance(error, HTTPException):
            state.handled = error
        return handle(*args)

    app.full_dispatch_request = full_dispatch_request  # type: ignore[method-assign, assignment]
    app.handle_user_exception = handle_user_exception  # type: ignore[method-assign, assignment]
    app.handle_exception = handle_exception  # type: ignore[method-assign, assignment]


def _record_exception(_: Flask, exception: BaseException, **__: Any) -> None:
    state = current_request.get()
    if state is not None:
        state.handled = exception
