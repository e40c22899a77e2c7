"""Apps that hold threads and connections, for the subprocesses of test_busy_server.py and test_limits.py."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator

from flask import Flask, Response, request, url_for

from flask_vantage import Vantage


def plain() -> Flask:
    """An app without Vantage."""
    app = Flask("busy")
    if limit := os.environ.get("APP_MAX_CONTENT_LENGTH"):
        app.config["MAX_CONTENT_LENGTH"] = int(limit)
    if largest := os.environ.get("APP_LARGEST_FILE"):
        # As if the file system were full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))

    @app.get("/")
    def home() -> dict[str, str | None]:
        return {"url": url_for("home", _external=True), "address": request.remote_addr}

    @app.get("/slow")
    def slow() -> str:
        time.sleep(float(request.args.get("seconds", "60")))
        return "done"

    @app.get("/events")
    def events() -> Response:
        def stream() -> Iterator[str]:
            while True:
                yield "data: tick\n\n"
                time.sleep(0.5)

        return Response(stream(), mimetype="text/event-stream")

    @app.get("/quiet-events")
    def quiet_events() -> Response:
        def stream() -> Iterator[str]:
            time.sleep(3600)
            yield "data: never\n\n"

        return Response(stream(), mimetype="text/event-stream")

    @app.get("/exit")
    def leave() -> None:
        sys.exit(3)

    @app.get("/exit-in-stream")
    def leave_in_stream() -> Response:
        def stream() -> Iterator[str]:
            yield "begun\n"
            sys.exit(3)

        return Response(stream(), mimetype="text/plain")

    @app.get("/broken")
    def broken() -> None:
        raise LookupError("not found in the cellar")

    @app.post("/upload")
    def upload() -> dict[str, int]:
        return {"length": len(request.get_data())}

    @app.post("/ignore")
    def ignore() -> str:
        return "not read"

    @app.errorhandler(413)
    def too_large(_: object) -> tuple[str, int]:
        return "the app's own page", 413

    return app


def with_vantage() -> Flask:
    app = plain()
    Vantage(app)
    return app


def propagating() -> Flask:
    """An app whose exceptions reach the server."""
    app = plain()
    app.config["PROPAGATE_EXCEPTIONS"] = True
    return app
