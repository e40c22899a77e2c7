from __future__ import annotations

import pytest
from flask import Flask, current_app

from conftest import ReadLines
from flask_vantage import Vantage


def _vantage(app: Flask) -> Vantage:
    vantage: Vantage = app.extensions["vantage"]
    return vantage


def test_app_without_checks_is_alive_and_ready(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/readyz").get_json() == {"status": "ok", "checks": {}}
    assert client.get("/readyz").headers["Cache-Control"] == "no-store"


def test_failing_check_makes_the_app_unready_and_is_named(app: Flask) -> None:
    def broken() -> None:
        raise OSError("password=hunter2")

    _vantage(app).add_readiness_check("disk", broken)
    _vantage(app).add_readiness_check("fine", lambda: None)
    client = app.test_client()
    response = client.get("/readyz")
    assert response.status_code == 503
    body = response.get_json()
    assert body["status"] == "failed"
    assert body["checks"]["disk"]["status"] == "failed"
    assert body["checks"]["disk"]["error"] == "OSError"
    assert body["checks"]["fine"]["status"] == "ok"
    # The endpoint may be public; the reason is in the log.
    assert "hunter2" not in response.get_data(as_text=True)
    assert client.get("/healthz").status_code == 200


def test_check_that_returns_false_fails(app: Flask) -> None:
    _vantage(app).add_readiness_check("no", lambda: False)
    assert app.test_client().get("/readyz").status_code == 503


def test_change_of_a_check_is_logged_once(app: Flask, lines: ReadLines) -> None:
    healthy = False
    _vantage(app).add_readiness_check("disk", lambda: healthy)
    client = app.test_client()
    for _ in range(3):
        client.get("/readyz")
    (line,) = lines()
    assert line["level"] == "error"
    assert line["check"] == "disk"
    healthy = True
    client.get("/readyz")
    client.get("/readyz")
    assert [(line["level"], line["check"]) for line in lines()] == [("info", "disk")]


def test_stopping_server_is_alive_and_not_ready(app: Flask) -> None:
    _vantage(app).health.draining = True
    client = app.test_client()
    assert client.get("/readyz").status_code == 503
    assert client.get("/readyz").get_json()["status"] == "stopping"
    assert client.get("/healthz").status_code == 200


def test_duplicate_check_name_is_an_error(app: Flask) -> None:
    _vantage(app).add_readiness_check("disk", lambda: None)
    with pytest.raises(ValueError, match="'disk'"):
        _vantage(app).add_readiness_check("disk", lambda: None)


def test_check_runs_in_the_context_of_the_app(app: Flask) -> None:
    names: list[str] = []
    _vantage(app).add_readiness_check("database", lambda: names.append(current_app.name))
    assert app.test_client().get("/readyz").status_code == 200
    assert names == ["ordinary"]


def test_failing_teardown_fails_its_check(app: Flask) -> None:
    @app.teardown_appcontext
    def close(_: BaseException | None) -> None:
        raise OSError("the session could not be closed")

    _vantage(app).add_readiness_check("database", lambda: None)
    response = app.test_client().get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["checks"]["database"]["error"] == "OSError"
