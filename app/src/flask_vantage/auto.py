"""Serves an app under OpenTelemetry's auto-instrumentation: `python -m flask_vantage.auto module:app`.

The app needs no change. Clients are instrumented as `Vantage(app)` does it; OpenTelemetry's own launcher starts all
other instrumentations that are installed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

DISABLED = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def instrument() -> None:
    """Set up tracing from the OTEL_* variables; a failure is logged, and the app runs without spans."""
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    from flask_vantage import clients

    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    given = os.environ.get(DISABLED, "")
    os.environ[DISABLED] = ",".join([given, "flask", *clients.names()])
    initialize()
    os.environ[DISABLED] = given
    if not {"flask", "*"} & {name.strip() for name in given.split(",")}:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument(request_hook=_name_unmatched)
    clients.instrument_clients()


def _name_unmatched(span: Any, _: object) -> None:
    """Name the span of a request without a route after its method: a scanner would create a name with each guess."""
    from flask import request

    if request.url_rule is None and span.is_recording():
        span.update_name(span.name.partition(" ")[0])


def main() -> int:
    """Instrument, then serve as `vantage-serve` does; returns its exit status."""
    try:
        instrument()
    except Exception as error:  # noqa: BLE001  # such as an app that pins a release of OpenTelemetry that does not fit
        print(f"instrument: auto: the app is not traced: {type(error).__name__}: {error}", file=sys.stderr)
    from flask_vantage.serve import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
