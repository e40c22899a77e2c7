"""An app with slow and large responses, served by the subprocesses of test_serve.py."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from flask import Flask, Response, request

from flask_vantage import Vantage


def create_app() -> Flask:
    app = Flask("slow")
    Vantage(app)

    @app.get("/slow")
    def slow() -> str:
        # The test waits for this file, to stop the server in the middle of a request.
        Path(request.args["mark"]).touch()
        time.sleep(float(request.args["seconds"]))
        return "done"

    @app.get("/gc")
    def collector_threshold() -> list[int]:
        return list(gc.get_threshold())

    @app.get("/stream")
    def stream() -> Response:
        return Response(b"x" * 1000 for _ in range(1000))

    @app.post("/echo")
    def echo() -> dict[str, int]:
        return {"length": len(request.get_data())}

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("x" * 200_000)

    return app
