"""An app that logs in the way that $HOW names, run by the subprocesses of test_logging_setups.py."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from logging.config import dictConfig
from typing import Any

import click
from flask import Flask

from flask_vantage import Vantage

HOW = os.environ.get("HOW", "")
FORMAT = "PLAIN %(message)s"


def _config(stream: str, logger: str, propagate: bool = True) -> dict[str, Any]:
    handlers = {"console": {"class": "logging.StreamHandler", "stream": stream, "formatter": "plain"}}
    one = {"level": "INFO", "handlers": ["console"], "propagate": propagate}
    loggers = {"root": one} if logger == "root" else {"loggers": {logger: one}}
    formatters = {"plain": {"format": FORMAT}}
    return {"version": 1, "formatters": formatters, "handlers": handlers, **loggers}


WSGI_STREAM = "ext://flask.logging.wsgi_errors_stream"
SETUPS = {
    # As on Flask's page about logging.
    "root": _config(WSGI_STREAM, "root"),
    "root-stdout": _config("ext://sys.stdout", "root"),
    "app-logger": _config("ext://sys.stdout", "logging_app"),
    "app-logger-alone": _config("ext://sys.stderr", "logging_app", propagate=False),
    "no-handlers": {"version": 1, "root": {"handlers": []}},
}


def create_app() -> Flask:
    app = Flask(__name__)
    setup, _, when = HOW.partition(":")
    if HOW == "early":
        app.logger.warning("the app logger has a handler of Flask's now")
    if HOW == "basic-before":
        logging.basicConfig(format=FORMAT, level=logging.INFO)
    if when == "before":
        dictConfig(SETUPS[setup])
    Vantage(app)
    if HOW == "basic-after":
        logging.basicConfig(format=FORMAT, level=logging.INFO, force=True)
    if when == "after":
        dictConfig(SETUPS[setup])
    if HOW == "file":
        app.logger.addHandler(logging.FileHandler(os.environ["FILE"]))

    @app.get("/")
    def home() -> str:
        app.logger.warning("a line of the view", extra={"order_id": 5, "level": "gold"})
        return "ok"

    @app.cli.command("export")
    def export() -> None:
        app.logger.warning("exporting")
        click.echo("a,b")

    return app


def in_child(number: int) -> None:
    if HOW == "spawn":
        # Such a child imports everything again.
        create_app()
    logging.getLogger("child").warning("line %s", number)


def main() -> None:
    create_app()
    if HOW == "fork-os":
        if os.fork() == 0:
            in_child(1)
            sys.exit()
        os.wait()
        return
    context = multiprocessing.get_context(HOW)
    processes = [context.Process(target=in_child, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
