from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, request
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry
from werkzeug.exceptions import HTTPException

from conftest import assert_problem
from flask_vantage import Problem, Vantage


@pytest.fixture
def app(registry: CollectorRegistry) -> Flask:
    app = Flask("problematic")
    app.config["MAX_CONTENT_LENGTH"] = 1000
    Vantage(app, registry=registry, problem_details=True)
    app.add_url_rule("/things/<int:thing>", "thing", lambda thing: {"thing": thing})
    app.add_url_rule("/things", "add", lambda: request.get_json(), methods=["POST"])

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("the secret of the cellar")

    return app


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
    response = client.post("/things", data=b"x" * 1001, content_type="application/json")
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


class _Lazy:
    def __str__(self) -> str:
        return "translated late"


@pytest.mark.parametrize(
    ("description", "detail"),
    [
        (ValueError("not a number"), "not a number"),
        (_Lazy(), "translated late"),
        ({"a"}, "{'a'}"),
        (b"bad \xff", "bad \ufffd"),
        ({"name": ["required"]}, {"name": ["required"]}),
        ({"name": _Lazy}, None),
        (None, None),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_any_description_keeps_the_status(app: Flask, description: Any, detail: object, accept: str) -> None:
    app.add_url_rule("/abort", view_func=lambda: abort(400, description))
    response = app.test_client().get("/abort", headers={"Accept": accept})
    assert response.status_code == 400
    if accept == "application/json":
        found = assert_problem(response, 400)["detail"]
        assert found == detail if detail is not None else found


@pytest.mark.parametrize("first", ["app", "vantage"])
@pytest.mark.parametrize("handled", [HTTPException, Exception])
def test_general_handlers_of_the_app_go_first(
    first: str, handled: type[Exception], registry: CollectorRegistry
) -> None:
    app = Flask("ordinary")
    if first == "vantage":
        Vantage(app, registry=registry, problem_details=True)
    app.register_error_handler(handled, lambda error: ({"mine": True}, getattr(error, "code", 500)))
    if first == "app":
        Vantage(app, registry=registry, problem_details=True)
    response = app.test_client().get("/nowhere")
    assert (response.status_code, response.get_json()) == (404, {"mine": True})


def test_exception_with_a_body_of_its_own_keeps_it(app: Flask) -> None:
    class Teapot(HTTPException):
        code = 418

        def get_body(self, *_: Any, **__: Any) -> str:
            return "short and stout"

        def get_headers(self, *_: Any, **__: Any) -> list[tuple[str, str]]:
            return [("Content-Type", "text/plain")]

    @app.get("/tea")
    def tea() -> str:
        raise Teapot

    response = app.test_client().get("/tea")
    assert (response.status_code, response.mimetype, response.data) == (418, "text/plain", b"short and stout")


def test_a_problem_that_is_raised_needs_no_option(registry: CollectorRegistry) -> None:
    app = Flask("ordinary")
    Vantage(app, registry=registry)

    @app.get("/busy")
    def busy() -> str:
        raise Problem(503, "Later.", left=3, cause=ValueError("x"))

    client = app.test_client()
    assert assert_problem(client.get("/busy"), 503)["left"] == 3
    assert client.get("/busy", headers={"Accept": "text/html"}).mimetype == "text/html"
    assert client.get("/nowhere").mimetype == "text/html"
