"""An app that knows nothing of OpenTelemetry, as `instrument: auto` serves it."""

from __future__ import annotations

import sqlite3

from flask import Flask

app = Flask("plain")


@app.get("/notes/<int:number>")
def note(number: int) -> dict[str, int]:
    with sqlite3.connect(":memory:") as connection:
        return {"note": connection.execute("SELECT ?, 'secret'", (number,)).fetchone()[0]}
