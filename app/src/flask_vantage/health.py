"""The liveness and readiness endpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, json
from loguru import logger
from opentelemetry.instrumentation.utils import suppress_instrumentation

# Fails by raising or by returning False. It must limit its own time.
ReadinessCheck = Callable[[], object]


class Health:
    """The readiness checks of one app, and whether its server is stopping (`draining`)."""

    def __init__(self) -> None:
        self.checks: dict[str, ReadinessCheck] = {}
        self._failed: frozenset[str] = frozenset()
        self.draining = False

    def alive(self) -> Response:
        """Answer 200 as long as the process answers at all."""
        return _no_store({"status": "ok"}, 200)

    def ready(self, app: Flask) -> Response:
        """Answer 200, or 503 with the failed checks or while the server is stopping.

        Each check runs in a context of `app`, so that a failing teardown is a failure of its check.
        """
        if self.draining:
            return _no_store({"status": "stopping", "checks": {}}, 503)
        checks: dict[str, Any] = {}
        failed = set()
        for name, check in self.checks.items():
            started = time.perf_counter()
            result: dict[str, Any] = {"status": "ok"}
            try:
                # Probes are not traced: each call of a check would be a trace of its own.
                with suppress_instrumentation(), app.app_context():
                    if check() is False:
                        raise RuntimeError("the check returned False")
            except Exception as error:  # noqa: BLE001 - any failure means not ready
                failed.add(name)
                # The reason goes to the log; the endpoint may be public.
                result = {"status": "failed", "error": type(error).__name__}
                if name not in self._failed:
                    logger.bind(check=name).opt(exception=error).error("The readiness check {} fails.", name)
            result["duration_ms"] = round((time.perf_counter() - started) * 1000, 3)
            checks[name] = result
        for name in self._failed - failed:
            logger.bind(check=name).info("The readiness check {} passes again.", name)
        self._failed = frozenset(failed)
        status = "failed" if failed else "ok"
        return _no_store({"status": status, "checks": checks}, 503 if failed else 200)


def _no_store(body: dict[str, Any], status: int) -> Response:
    headers = {"Cache-Control": "no-store", "Content-Type": "application/json"}
    return Response(json.dumps(body) + "\n", status, headers)
