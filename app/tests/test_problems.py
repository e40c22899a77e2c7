from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response, abort, redirect
from flask.testing import FlaskClient

from conftest import assert_problem
from flask_vantage import Problem


def test_404_is_problem_json(client: FlaskClient) -> None:
    body = assert_problem(client.get("/nowhere"), 404)
    assert body["title"] == "Not Found"
    assert body["type"] == "about:blank"


def test_problem_has_the_ids_of_the_headers(client: FlaskClient) -> None:
    response = client.get("/nowhere")
    body = assert_problem(response, 404)
    assert body["trace_id"] == response.headers["X-Trace-Id"]
    assert body["request_id"] == response.headers["X-Request-ID"]


def test_405_lists_the_allowed_methods(client: FlaskClient) -> None:
    response = client.delete("/things/1")
    assert_problem(response, 405)
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_invalid_json_is_400(client: FlaskClient) -> None:
    response = client.post("/things", data="{", content_type="application/json")
    assert_problem(response, 400)


def test_other_content_type_than_json_is_415(client: FlaskClient) -> None:
    assert_problem(client.post("/things", data="a=1", content_type="text/plain"), 415)


def test_body_above_the_limit_is_413(client: FlaskClient) -> None:
    client.application.config["MAX_CONTENT_LENGTH"] = 1024 * 1024
    response = client.post("/things", data=b"x" * (1024 * 1024 + 1), content_type="application/json")
    assert_problem(response, 413)


def test_500_does_not_leak_the_exception(client: FlaskClient) -> None:
    response = client.get("/broken")
    assert_problem(response, 500)
    text = response.get_data(as_text=True)
    assert "cellar" not in text
    assert "LookupError" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml,*/*;q=0.8", "text/html"])
def test_browser_gets_a_page(client: FlaskClient, accept: str) -> None:
    response = client.get("/nowhere", headers={"Accept": accept})
    assert response.status_code == 404
    assert response.mimetype == "text/html"
    assert response.headers["X-Trace-Id"] in response.get_data(as_text=True)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/html", ""])
def test_program_gets_problem_json(client: FlaskClient, accept: str) -> None:
    assert_problem(client.get("/nowhere", headers={"Accept": accept}), 404)


def test_error_page_escapes_the_detail(app: Flask) -> None:
    @app.get("/scripted")
    def scripted() -> str:
        raise Problem(400, "<script>alert(1)</script>")

    page = app.test_client().get("/scripted", headers={"Accept": "text/html"})
    assert "<script>" not in page.get_data(as_text=True)
    assert "&lt;script&gt;" in page.get_data(as_text=True)


def test_members_errors_and_headers_of_a_problem_reach_the_client(app: Flask) -> None:
    @app.get("/busy")
    def busy() -> str:
        errors = [{"field": "f", "detail": "d"}]
        raise Problem(503, "Later.", errors=errors, headers={"Retry-After": "7"}, left=3)

    response = app.test_client().get("/busy")
    assert assert_problem(response, 503, "f")["left"] == 3
    assert response.headers["Retry-After"] == "7"


def test_error_handlers_of_the_app_go_first(app: Flask) -> None:
    @app.errorhandler(404)
    def lost(_: Any) -> tuple[str, int]:
        return "own page", 404

    assert app.test_client().get("/nowhere").get_data() == b"own page"


def test_redirects_and_complete_responses_pass_unchanged(app: Flask) -> None:
    @app.get("/old/")
    def old() -> Any:
        return redirect("/new")

    @app.get("/ready-made")
    def ready_made() -> str:
        abort(Response("teapot", 418))

    client = app.test_client()
    assert client.get("/old").status_code == 308
    assert client.get("/old/").status_code == 302
    assert client.get("/ready-made").get_data() == b"teapot"


def test_exceptions_propagate_in_testing_mode(app: Flask) -> None:
    app.testing = True
    with pytest.raises(LookupError):
        app.test_client().get("/broken")
