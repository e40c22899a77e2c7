"""The Flask extension `Vantage`."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, got_request_exception, request
from prometheus_client import REGISTRY, CollectorRegistry
from werkzeug.exceptions import HTTPException

from flask_vantage import _private, clients, logs, tracing
from flask_vantage.context import current_request
from flask_vantage.health import Health, ReadinessCheck
from flask_vantage.metrics import Metrics, metrics_of
from flask_vantage.middleware import TelemetryMiddleware
from flask_vantage.problems import problem_response
from flask_vantage.settings import Settings

METRICS_PATH, ALIVE_PATH, READY_PATH = "/metrics", "/healthz", "/readyz"


class Vantage:
    """Adds metrics, traces, JSON logs, health endpoints and problem+json errors to a Flask app.

    Use `Vantage(app)`, or `Vantage()` and `init_app(app)` later. `settings` default to those of the environment,
    `registry` (what `/metrics` shows) to prometheus_client's default registry. Raises `SettingsError` for an invalid
    setting. Logging and the tracer provider belong to the process: with two apps in one process, log lines carry the
    service name of the last app, spans that of the first.
    """

    def __init__(
        self, app: Flask | None = None, *, settings: Settings | None = None, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._settings = settings
        self._registry = registry
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
        if app.config["MAX_CONTENT_LENGTH"] is None:
            app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
        # The app's own handlers go first.
        app.register_error_handler(HTTPException, problem_response)
        blueprint = Blueprint("vantage", __name__, template_folder="templates")
        blueprint.add_url_rule(ALIVE_PATH, "alive", self.health.alive)
        blueprint.add_url_rule(READY_PATH, "ready", self.health.ready)
        if settings.telemetry:
            self._set_up_telemetry(app, settings, blueprint)
        app.register_blueprint(blueprint)

    def add_readiness_check(self, name: str, check: ReadinessCheck) -> None:
        """Make `/readyz` answer 503 while `check` raises or returns False; raises ValueError for a taken name.

        The check runs in the request and must limit its own time. Check what only this process needs: a check of a
        shared service takes out all its users at once.
        """
        if name in self.health.checks:
            raise ValueError(f"duplicate readiness check: {name!r}. Use another name.")
        self.health.checks[name] = check

    def _set_up_telemetry(self, app: Flask, settings: Settings, blueprint: Blueprint) -> None:
        service = settings.service_name or app.name
        logs.configure(service, settings.log_level)
        metrics = self.metrics = metrics_of(self._registry)
        logs.line_writer().count_dropped = metrics.log_lines_dropped.inc
        provider = tracing.obtain_provider(settings, metrics, service)
        clients.instrument_clients()
        blueprint.add_url_rule(METRICS_PATH, "metrics", metrics.response)
        tracer, quiet_paths = provider.get_tracer("flask_vantage"), frozenset((METRICS_PATH, ALIVE_PATH, READY_PATH))
        app.wsgi_app = TelemetryMiddleware(app.wsgi_app, metrics, tracer, quiet_paths)  # type: ignore[method-assign]
        # First, so that the route is known even when the app's own function ends the request.
        _private.insert_before_request(app, _record_route)
        got_request_exception.connect(_record_exception, app)
        # The access line has the stack trace; Flask's own line would be a second one.
        app.log_exception = lambda _: None  # type: ignore[method-assign, assignment]


def _record_route() -> None:
    state = current_request.get()
    if state is not None and request.url_rule is not None:
        state.route = request.url_rule.rule


def _record_exception(_: Flask, exception: BaseException, **__: Any) -> None:
    state = current_request.get()
    if state is not None:
        state.exception = exception
