"""`Vantage(app)` changes no answer: recorded requests give the same bytes with it and without, in either order."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import flask_restx  # type: ignore[import-untyped]
import flask_smorest
import marshmallow
import pytest
from apiflask import APIFlask, HTTPTokenAuth, Schema
from apiflask import abort as apiflask_abort
from apiflask.fields import Integer, String
from apiflask.validators import Length
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    flash,
    g,
    jsonify,
    make_response,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from flask.views import MethodView
from prometheus_client import CollectorRegistry
from werkzeug.exceptions import HTTPException, NotFound, TooManyRequests
from werkzeug.security import check_password_hash, generate_password_hash

from flask_vantage import Settings, Vantage

# Adds the routes, handlers and extensions of one app.
Build = Callable[[Flask], None]
# Method, path, and arguments of the test client.
Request = tuple[str, str, dict[str, Any]]

ADDED_HEADERS = {"x-request-id", "x-trace-id"}


# flask-smorest, as its documents have it.


class _Pet(marshmallow.Schema):
    name = marshmallow.fields.String(required=True)
    age = marshmallow.fields.Integer(required=True)


def smorest(app: Flask) -> None:
    app.config.update(API_TITLE="Pets", API_VERSION="v1", OPENAPI_VERSION="3.0.2", OPENAPI_URL_PREFIX="/")
    api = flask_smorest.Api(app)
    blueprint = flask_smorest.Blueprint("pets", "pets", url_prefix="/pets")

    @blueprint.route("/")
    class Pets(MethodView):
        @blueprint.arguments(_Pet)
        @blueprint.response(201, _Pet)
        def post(self, new: dict[str, Any]) -> dict[str, Any]:
            return new

        @blueprint.response(200, _Pet(many=True))
        @blueprint.paginate()
        def get(self, pagination_parameters: Any) -> list[dict[str, Any]]:
            pagination_parameters.item_count = 1
            return [{"name": "Rex", "age": 3}]

        @blueprint.etag
        def delete(self) -> None:
            flask_smorest.abort(409, message="Taken already.", errors={"name": ["is taken"]})

    @blueprint.route("/broken")
    def broken() -> str:
        raise LookupError("broken")

    api.register_blueprint(blueprint)


JSON = {"Content-Type": "application/json"}
SMOREST: list[Request] = [
    ("POST", "/pets/", {"json": {"name": "Rex", "age": 3}}),
    ("POST", "/pets/", {"json": {"age": "x"}}),
    ("POST", "/pets/", {"data": "{", "headers": JSON}),
    ("POST", "/pets/", {"data": "a=1"}),
    ("GET", "/pets/", {}),
    ("GET", "/pets/?page=0", {}),
    ("DELETE", "/pets/", {}),
    ("PUT", "/pets/", {}),
    ("GET", "/pets", {}),
    ("GET", "/pets/broken", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/openapi.json", {}),
]


# flask-restx: the todo list of its documents.


def restx(app: Flask) -> None:
    api = flask_restx.Api(app, version="1.0", title="Todo", description="A list")
    namespace = api.namespace("todos", description="Operations")
    model = api.model("Todo", {"task": flask_restx.fields.String(required=True)})

    @namespace.route("/<int:number>")
    class Todo(flask_restx.Resource):  # type: ignore[misc]
        @namespace.marshal_with(model)
        def get(self, number: int) -> Any:
            if number > 1:
                api.abort(404, f"Todo {number} doesn't exist", hint="1")
            return {"task": "build"}

        @namespace.expect(model, validate=True)
        def post(self, number: int) -> Any:
            return {"task": api.payload["task"]}, 201, {"X-Todo": str(number)}

        def delete(self, number: int) -> Any:
            raise LookupError("broken")

        def put(self, number: int) -> Any:
            raise ZeroDivisionError("broken")

    @api.errorhandler(ZeroDivisionError)  # type: ignore[untyped-decorator]
    def divided(error: ZeroDivisionError) -> Any:
        return {"message": str(error), "mine": True}, 503

    app.add_url_rule("/plain", view_func=lambda: abort(403))


RESTX: list[Request] = [
    ("GET", "/todos/1", {}),
    ("GET", "/todos/2", {}),
    ("GET", "/todos/x", {}),
    ("POST", "/todos/1", {"json": {"task": "t"}}),
    ("POST", "/todos/1", {"json": {}}),
    ("POST", "/todos/1", {"data": "x", "headers": JSON}),
    ("DELETE", "/todos/1", {}),
    ("PUT", "/todos/1", {}),
    ("PATCH", "/todos/1", {}),
    ("GET", "/plain", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/swagger.json", {}),
]


# APIFlask: its "basic" and "auth" examples.


class _PetIn(Schema):
    name = String(required=True, validate=Length(0, 10))


class _PetOut(Schema):
    id = Integer()
    name = String()


def apiflask(app: Flask) -> None:
    assert isinstance(app, APIFlask)
    auth = HTTPTokenAuth()

    @auth.verify_token
    def verify(token: str) -> str | None:
        return token if token == "right" else None

    @app.get("/pets/<int:pet_id>")
    @app.output(_PetOut)
    def pet(pet_id: int) -> Any:
        if pet_id > 1:
            apiflask_abort(404, "No such pet.", extra_data={"docs": "/docs"})
        return {"id": pet_id, "name": "Rex"}

    @app.post("/pets")
    @app.input(_PetIn, location="json")
    @app.output(_PetOut, status_code=201)
    def create(json_data: dict[str, Any]) -> Any:
        return {"id": 2, **json_data}

    @app.get("/secret")
    @app.auth_required(auth)
    def secret() -> Any:
        return {"secret": 1}

    @app.get("/broken")
    def broken() -> Any:
        raise LookupError("broken")


APIFLASK: list[Request] = [
    ("GET", "/pets/1", {}),
    ("GET", "/pets/2", {}),
    ("POST", "/pets", {"json": {"name": "Rex"}}),
    ("POST", "/pets", {"json": {"name": "x" * 11}}),
    ("POST", "/pets", {"data": "{", "headers": JSON}),
    ("GET", "/secret", {}),
    ("GET", "/secret", {"headers": {"Authorization": "Bearer right"}}),
    ("GET", "/broken", {}),
    ("GET", "/nowhere", {}),
    ("DELETE", "/pets", {}),
    ("GET", "/openapi.json", {}),
]


# A blog with login, sessions, flashed messages and SQLite, as Flask's tutorial builds one.


def blog(app: Flask) -> None:
    app.config["SECRET_KEY"] = "of the test"
    salted = generate_password_hash("right", "pbkdf2:sha256:1")

    def database() -> sqlite3.Connection:
        if "db" not in g:
            g.db = sqlite3.connect(":memory:")
            g.db.execute("CREATE TABLE post (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
            g.db.execute("INSERT INTO post (title) VALUES ('first')")
        connection: sqlite3.Connection = g.db
        return connection

    @app.teardown_appcontext
    def close(_: BaseException | None) -> None:
        if (connection := g.pop("db", None)) is not None:
            connection.close()

    auth = Blueprint("auth", __name__, url_prefix="/auth")

    @auth.route("/login", methods=["GET", "POST"])
    def login() -> Any:
        if request.method == "POST":
            if check_password_hash(salted, request.form["password"]):
                session["user"] = "ada"
                return redirect(url_for("index"))
            flash("Incorrect password.")
        return render_template_string("{{ get_flashed_messages() }}<form>")

    @app.route("/")
    def index() -> str:
        titles = [title for (title,) in database().execute("SELECT title FROM post")]
        return render_template_string("{{ session.user }} {{ titles }}", titles=titles)

    @app.route("/<int:post>/update", methods=["GET", "POST"])
    def update(post: int) -> Any:
        if "user" not in session:
            return redirect(url_for("auth.login"))
        if post > 1:
            abort(404, f"Post id {post} doesn't exist.")
        database().execute("UPDATE post SET title = ?", (request.form.get("title"),))
        return "updated"

    app.register_blueprint(auth)


BLOG: list[Request] = [
    ("GET", "/", {}),
    ("GET", "/1/update", {}),
    ("POST", "/auth/login", {"data": {"password": "wrong"}}),
    ("GET", "/auth/login", {}),
    ("POST", "/auth/login", {"data": {}}),
    ("POST", "/auth/login", {"data": {"password": "right"}}),
    ("GET", "/", {}),
    ("POST", "/2/update", {"data": {"title": "t"}}),
    ("POST", "/1/update", {"data": {"title": "t"}}),
    ("POST", "/1/update", {"data": {}}),
    ("GET", "/static/none.css", {}),
]


# An app with every kind of error handler, hook and body.


class _Gone(HTTPException):
    code = 410

    def get_body(self, *_: Any, **__: Any) -> str:
        return '{"own": "body"}'

    def get_headers(self, *_: Any, **__: Any) -> list[tuple[str, str]]:
        return [("Content-Type", "application/json"), ("X-Own", "1")]


class _Unavailable(Exception):
    pass


def every_handler(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 2 * 1024 * 1024
    app.register_error_handler(404, lambda error: (f"own page for {error.code}", 404))
    app.register_error_handler(_Unavailable, lambda _: ({"error": "later"}, 503, {"Retry-After": "3"}))
    app.register_error_handler(KeyError, lambda error: error)  # fails
    app.register_error_handler(ValueError, lambda error: (str(error), 400))
    app.register_error_handler(500, lambda error: (repr(error.original_exception), 500))
    app.register_error_handler(HTTPException, lambda error: jsonify(code=error.code, name=error.name))
    blueprint = Blueprint("part", __name__, url_prefix="/part")
    blueprint.register_error_handler(Exception, lambda error: (f"part {type(error).__name__}", 502))

    @app.before_request
    def stop() -> Any:
        return ("stopped", 299) if "stop" in request.args else None

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers["X-After"] = "1"
        if "own-id" in request.args:
            response.headers["X-Request-ID"] = "own"
        return response

    def rows() -> Iterator[str]:
        yield "a,b\n"
        yield request.path

    def fail(error: BaseException) -> Callable[..., str]:
        def view() -> str:
            raise error

        return view

    views: dict[str, Callable[..., Any]] = {
        "/text": lambda: "text",
        "/json": lambda: {"a": 1},
        "/empty": lambda: ("", 204),
        "/bytes": lambda: make_response(b"\xff", 201),
        "/stream": lambda: Response(stream_with_context(rows())),
        "/stream-of-known-length": lambda: Response(iter([b"ab", b"cd"]), headers={"Content-Length": "4"}),
        "/file": lambda: send_file(__file__, conditional=True, last_modified=0),
        "/redirect": lambda: redirect("/text"),
        "/returned": lambda: NotFound(),
        "/unavailable": fail(_Unavailable()),
        "/key": fail(KeyError("k")),
        "/value": fail(ValueError("v")),
        "/type": fail(TypeError("t")),
        "/gone": fail(_Gone()),
        "/often": fail(TooManyRequests(retry_after=7)),
        "/teapot": lambda: abort(418, {"a": ["b"]}),
        "/exception": lambda: abort(400, ValueError("described")),
        "/ready-made": lambda: abort(make_response({"x": 1}, 422)),
        "/upload": lambda: str(len(request.get_data())),
    }
    for path, view in views.items():
        app.add_url_rule(path, path[1:], view, methods=["GET", "POST"])
    blueprint.add_url_rule("/boom", view_func=fail(RuntimeError("boom")))
    app.register_blueprint(blueprint)


EVERY: list[Request] = [
    *(("GET", path, {}) for path in (
        "/text", "/json", "/empty", "/bytes", "/stream", "/stream-of-known-length", "/file", "/redirect", "/returned",
        "/unavailable", "/key", "/value", "/type", "/gone", "/often", "/teapot", "/exception", "/ready-made",
        "/part/boom", "/part/nowhere", "/nowhere", "/text?stop=1", "/text?own-id=1", "/text/",
    )),
    *(("HEAD", path, {}) for path in ("/text", "/stream", "/file", "/value")),
    ("OPTIONS", "/text", {}),
    ("DELETE", "/text", {}),
    ("BREW", "/text", {}),
    ("POST", "/metrics", {}),
    ("GET", "/file", {"headers": {"Range": "bytes=0-9"}}),
    ("GET", "/file", {"headers": {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}}),
    ("GET", "/nowhere", {"headers": {"Accept": "text/html"}}),
    ("POST", "/upload", {"data": b"x" * 1_500_000}),
    ("POST", "/upload", {"data": b"x" * 2_500_000}),
]  # fmt: skip


def plain(app: Flask) -> None:
    """Add no error handler: werkzeug's pages are the app's own choice too."""
    app.add_url_rule("/broken", "broken", lambda: {}["key"])
    app.add_url_rule("/abort", "abort", lambda: abort(400, {"a"}))
    app.add_url_rule("/upload", "upload", lambda: str(len(request.get_data())), methods=["POST"])


PLAIN: list[Request] = [
    ("GET", "/broken", {}),
    ("GET", "/abort", {}),
    ("GET", "/nowhere", {}),
    ("POST", "/broken", {}),
    ("POST", "/upload", {"data": b"x" * 3_000_000}),
]

APPS: dict[str, tuple[type[Flask], Build, list[Request]]] = {
    "smorest": (Flask, smorest, SMOREST),
    "restx": (Flask, restx, RESTX),
    "apiflask": (APIFlask, apiflask, APIFLASK),
    "blog": (Flask, blog, BLOG),
    "every_handler": (Flask, every_handler, EVERY),
    "plain": (Flask, plain, PLAIN),
}


def record(app: Flask, requests: list[Request]) -> list[tuple[str, str, list[tuple[str, str]], bytes]]:
    """Return method and path, status, headers and body of each answer."""
    client, answers = app.test_client(), []
    for method, path, arguments in requests:
        with client.open(path, method=method, **arguments) as response:
            headers = [(name, value) for name, value in response.headers if name.lower() != "date"]
            answers.append((f"{method} {path}", response.status, headers, response.get_data()))
    return answers


def _without_ids(headers: list[tuple[str, str]], plain: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out what the extension adds; a header of that name that the app sets is the app's."""
    own = {name.lower() for name, _ in plain}
    return [(name, value) for name, value in headers if name.lower() in own or name.lower() not in ADDED_HEADERS]


@pytest.mark.parametrize("name", APPS)
@pytest.mark.parametrize("first", ["app", "vantage"])
@pytest.mark.parametrize("telemetry", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_answers_are_the_same_bytes_with_the_extension(
    name: str, first: str, telemetry: bool, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)  # in signed cookies
    kind, build, requests = APPS[name]
    without, with_it = kind(__name__), kind(__name__)
    build(without)
    if first == "app":
        build(with_it)
    Vantage(with_it, registry=registry, settings=Settings(telemetry=telemetry))
    if first == "vantage":
        build(with_it)
    expected, found = record(without, requests), record(with_it, requests)
    for (request_line, status, headers, body), answer in zip(expected, found, strict=True):
        assert (request_line, status, body) == (answer[0], answer[1], answer[3])
        assert headers == _without_ids(answer[2], headers), request_line


# With `problem_details`, only werkzeug's own pages change.


@pytest.mark.parametrize("name", ["smorest", "restx", "apiflask", "every_handler"])
@pytest.mark.parametrize("first", ["app", "vantage"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_problem_details_replace_no_answer_of_an_extension_or_handler(
    name: str, first: str, registry: CollectorRegistry
) -> None:
    kind, build, requests = APPS[name]
    without, with_it = kind(__name__), kind(__name__)
    build(without)
    if first == "app":
        build(with_it)
    Vantage(with_it, registry=registry, problem_details=True)
    if first == "vantage":
        build(with_it)
    changed = 0
    for expected, found in zip(record(without, requests), record(with_it, requests), strict=True):
        if found[3] != expected[3]:
            changed += 1
            assert b"<!doctype html>" in expected[3].lower(), expected
            assert dict(found[2])["Content-Type"] == "application/problem+json"
        assert found[1] == expected[1]
    # restx leaves the errors of routes that are not its own to Flask; /returned asks for werkzeug's page.
    assert changed == {"restx": 3, "every_handler": 1}.get(name, 0)
