"""`vantage-serve`: waitress with limits, and a stop on SIGTERM that loses no request and no span."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import resource
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from flask import Flask
from loguru import logger

from flask_vantage import startup
from flask_vantage._connection import Refusal
from flask_vantage._waitress import HttpServer
from flask_vantage.access import AccessLog
from flask_vantage.busy import BusyThreads, Running, summarize
from flask_vantage.proxies import TrustedProxies
from flask_vantage.settings import Settings, SettingsError

# Importing OpenTelemetry here would keep an app that pins another version of it from starting.
if TYPE_CHECKING:
    from flask_vantage.extension import Vantage
    from flask_vantage.metrics import Metrics

# After SIGTERM, /readyz answers 503 for this long while everything else is still served, so that a load balancer
# can send requests elsewhere before connections are refused.
GRACE_SECONDS = 0.5
# Streams (responses of unknown length) get this long after SIGTERM: one may have no end.
STREAM_SECONDS = 3.0
# And their threads this long to notice.
STREAM_END_SECONDS = 1.5
# The part of the stop timeout that is kept for exporting the last spans.
FLUSH_SECONDS = 4.0


class TargetError(ValueError):
    """The target names no Flask app; the text gives the value and the fix."""


def load_app(target: str) -> Flask:
    """Return the app that `module:attribute` names; a factory is called without arguments.

    The attribute may have dots: `web:dashboard.server` for Dash.

    Raises `TargetError`; exceptions of the application's own code pass unchanged.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise TargetError(f"invalid target: {target!r} (module:attribute). Use e.g. mypackage:create_app.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # An import that fails inside the application is another error, with a traceback to show.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        fix = "Install it, or add its directory to PYTHONPATH."
        raise TargetError(f"module not found: {error.name!r}. {fix}") from None
    found: object = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise TargetError(f"attribute not found: {attribute!r} in module {module_name!r}. Name an app or a factory.")
    if not isinstance(found, Flask) and callable(found):
        found = found()
    if not isinstance(found, Flask):
        kind = type(found).__name__
        raise TargetError(f"not a Flask app or a factory of one: {target!r} ({kind}). Name one that is.")
    return found


class Server:
    """Serves one app until SIGTERM or SIGINT; a second signal skips waiting for requests.

    Raises OSError when the address cannot be listened on.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._vantage: Vantage | None = app.extensions.get("vantage")
        self._settings = settings
        self._signals = 0
        self._busy = BusyThreads(settings.threads)
        # An app with Vantage writes its own access lines.
        has_lines = self._vantage is None and settings.log_level in ("TRACE", "DEBUG", "INFO")
        self._access_log = AccessLog() if has_lines else None
        limit = app.config.get("MAX_CONTENT_LENGTH")
        self._server = HttpServer(
            TrustedProxies(app, settings.trusted_proxies),
            self,
            host=settings.host,
            port=settings.port,
            threads=settings.threads,
            connection_limit=settings.connection_limit,
            body_limit=settings.max_body_bytes,
            # Flask itself reports a value of another type, when it compares it.
            app_body_limit=int(limit) if isinstance(limit, int | float) else None,
            max_request_header_size=64 * 1024,
            # A larger body goes to a temporary file: the container's memory is for the app.
            inbuf_overflow=64 * 1024,
            # Seconds that a connection may be idle.
            channel_timeout=60,
            ident=None,
            # `TrustedProxies` does this.
            clear_untrusted_proxy_headers=False,
        )
        if metrics := self._metrics():
            threads, busy, waiting = metrics.server_threads
            threads.set(settings.threads)
            busy.set_function(lambda: len(self._server.running()))
            waiting.set_function(self._server.count_waiting)

    def _metrics(self) -> Metrics | None:
        return self._vantage.metrics if self._vantage is not None else None

    def run(self) -> None:
        """Serve, then stop: report not ready, finish the requests in flight, export the last spans."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._settings.tune_gc:
            # What is loaded at the start stays, so the collector need not scan it again. Requests leave few cycles
            # behind, so it may also run less often than every 700 objects.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 50, 50)
        logger.info("Listening on http://{}:{}", *self._server.address)
        self._server.loop(lambda: self._signals > 0, 1.0)
        started = time.monotonic()
        deadline = started + self._settings.stop_timeout - FLUSH_SECONDS
        logger.info("Stopping: not ready, finishing the requests in flight.")
        if self._vantage is not None:
            self._vantage.health.draining = True
        self._server.is_draining = True
        grace = min(started + GRACE_SECONDS, deadline)
        self._server.loop(lambda: time.monotonic() >= grace or self._signals > 1, 0.05)
        self._server.close_listener()
        self._finish_requests(started + STREAM_SECONDS, deadline)
        if unfinished := self._server.count_busy():
            which = summarize(self._server.unfinished()) or "responses that their clients do not read"
            logger.bind(requests_unfinished=unfinished).warning(
                "Stopping with {} requests unfinished: {}", unfinished, which
            )
        self._server.stop_threads(0.5)
        if not _flush_spans(FLUSH_SECONDS - 1.0):
            logger.warning("The last spans were not exported in time.")
        logger.info("Stopped after {:.1f} s.", time.monotonic() - started)
        if "flask_vantage.logs" in sys.modules:
            sys.modules["flask_vantage.logs"].flush(0.5)

    def _finish_requests(self, end_of_streams: float, deadline: float) -> None:
        """Serve until all requests are finished; a stream, which may have no end, only until `end_of_streams`."""

        def is_finished() -> bool:
            now = time.monotonic()
            if now >= end_of_streams:
                self._server.end_streams()
            # The threads of ended streams notice it when they send the next part; a silent one never does.
            is_waiting = self._server.count_busy(streams=now < end_of_streams + STREAM_END_SECONDS)
            return not is_waiting or now >= deadline or self._signals > 1

        self._server.loop(is_finished, 0.05)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # No logging here: the handler may interrupt a log call that holds its lock.
        self._signals += 1
        self._server.wake()

    def watch(self, running: list[Running], waiting: int) -> None:
        """Log when all threads are busy; while the server stops, that is told at the end."""
        if not self._server.is_draining:
            self._busy.watch(running, waiting)

    def report_exception(self, method: str, path: str, error: BaseException) -> None:
        """Log an exception that left the app, unless the access line has it already."""
        if not getattr(error, "is_logged", False):
            logger.opt(exception=error).error("The app raised an exception: {} {}", method, path)

    def report_response(
        self, method: str, path: str, environ: Mapping[str, Any], status: str, length: int | None, seconds: float
    ) -> None:
        """Write the access line of an app that writes none itself."""
        if self._access_log is not None:
            # The address is that of `TrustedProxies`, or of the app's ProxyFix.
            self._access_log.write(
                method,
                path,
                status,
                seconds,
                environ.get("REMOTE_ADDR"),
                length,
                environ.get("HTTP_REFERER", ""),
                environ.get("HTTP_USER_AGENT", ""),
            )

    def refuse(self, refusal: Refusal) -> tuple[list[tuple[str, str]], bytes]:
        """Return headers and body (problem+json) of a response of the server's own; log and count the request."""
        if self._access_log is not None:
            self._access_log.write(
                refusal.method, refusal.path, str(refusal.status), refusal.seconds, refusal.client_address
            )
        request_id = secrets.token_hex(16)
        detail = "The application failed; its log has the exception."
        # The exception is logged and, by the middleware, counted.
        if refusal.status != 500:
            detail = f"The server rejected the request before it reached the application: {refusal.reason}."
            logger.bind(
                request_id=request_id,
                http_request_method=refusal.method,
                url_path=refusal.path,
                http_response_status_code=refusal.status,
                client_address=refusal.client_address,
            ).log(
                "WARNING" if refusal.status > 500 else "INFO",
                "Request rejected: {} {} {}: {}",
                refusal.status,
                refusal.method,
                refusal.path,
                refusal.reason,
            )
            if metrics := self._metrics():
                metrics.observe_unmatched(refusal.method, refusal.status, refusal.seconds)
        body = {
            "type": "about:blank",
            "title": refusal.title,
            "status": refusal.status,
            "detail": detail,
            "request_id": request_id,
        }
        headers = [("Content-Type", "application/problem+json"), ("X-Request-ID", request_id)]
        if refusal.status == 503:
            headers.append(("Retry-After", "1"))
        return headers, json.dumps(body).encode() + b"\n"


def _flush_spans(timeout: float) -> bool:
    # Only if something traces: an app without tracing may have another version of OpenTelemetry, or none.
    if "opentelemetry.sdk.trace" not in sys.modules:
        return True
    try:
        from flask_vantage import tracing
    except ImportError:
        return True  # the SDK of the app flushes at exit
    return tracing.shut_down(timeout)


def _allow_files(count: int) -> None:
    """Raise the limit of open files to `count` where the system allows it: a connection is one, a large body another.

    Some engines start containers with a limit of 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns 0 after a clean stop, 1 when the app's code fails, and 2 for an invalid setting or target.
    """
    parser = argparse.ArgumentParser(
        prog="vantage-serve",
        description="Serve a Flask app with waitress. Settings come from environment variables: "
        "PORT, VANTAGE_HOST, VANTAGE_THREADS, VANTAGE_TRUSTED_PROXIES, …",
    )
    parser.add_argument("target", help="module:app or module:factory")
    options = parser.parse_args(arguments)
    try:
        app = load_app(options.target)
        # In an app without Vantage, the variables OTEL_* are for the app's own tracing.
        is_ours = "vantage" in app.extensions
        settings = Settings.from_environment(
            {name: value for name, value in os.environ.items() if is_ours or not name.startswith("OTEL_")}
        )
    except (SettingsError, TargetError) as error:
        print(f"vantage-serve: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        traceback.print_exc()
        print(f"vantage-serve: {startup.explain(error)}", file=sys.stderr)
        return 1
    try:
        server = Server(app, settings)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        print(
            f"vantage-serve: cannot listen on {address}: {error.strerror or error}. Check PORT and VANTAGE_HOST.",
            file=sys.stderr,
        )
        return 2
    _allow_files(2 * settings.connection_limit + 256)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
