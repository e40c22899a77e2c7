"""Probes and scrapes are answered whatever the app does with requests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Blueprint, Flask, Response, abort, redirect, request
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry, make_wsgi_app
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from conftest import ReadLines
from flask_vantage import Settings, Vantage

PATHS = ("/healthz", "/readyz", "/metrics")


def _login(app: Flask) -> None:
    app.before_request(lambda: redirect("/login"))


def _token(app: Flask) -> None:
    app.before_request(lambda: abort(401))


def _https(app: Flask) -> None:
    # As Flask-Talisman does.
    app.before_request(lambda: redirect(request.url.replace("http:", "https:"), 302))


def _limit(app: Flask) -> None:
    # As Flask-Limiter does.
    app.before_request(lambda: abort(429))


def _trusted_hosts(app: Flask) -> None:
    app.config["TRUSTED_HOSTS"] = ["shop.example.org"]


def _url_processor(app: Flask) -> None:
    app.url_value_preprocessor(lambda *_: abort(400))


def _after_request(app: Flask) -> None:
    @app.after_request
    def replace(_: Response) -> Response:
        return Response("replaced", 500)


def _catch_all(app: Flask) -> None:
    app.add_url_rule("/<path:rest>", view_func=lambda rest: f"index.html for {rest}")


GATES = [_login, _token, _https, _limit, _trusted_hosts, _url_processor, _after_request, _catch_all]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("first", ["app", "vantage"])
@pytest.mark.parametrize("telemetry", [True, False])
def test_no_hook_of_the_app_catches_probes_and_scrapes(
    gate: Callable[[Flask], None], first: str, telemetry: bool, registry: CollectorRegistry
) -> None:
    app = Flask("gated")
    if first == "app":
        gate(app)
    Vantage(app, registry=registry, settings=Settings(telemetry=telemetry))
    if first == "vantage":
        gate(app)
    client = app.test_client()
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/readyz").get_json() == {"status": "ok", "checks": {}}
    if telemetry:
        assert "vantage_build_info" in client.get("/metrics").get_data(as_text=True)


def test_head_has_the_headers_and_no_body(client: FlaskClient) -> None:
    for path in PATHS:
        response = client.head(path)
        assert (response.status_code, response.data) == (200, b"")
        assert int(response.headers["Content-Length"]) > 0


def test_other_methods_are_the_apps(app: Flask) -> None:
    assert app.test_client().post("/metrics").status_code == 404
    other = Flask("pushed")
    other.add_url_rule("/metrics", view_func=lambda: "taken", methods=["POST"])
    Vantage(other, registry=CollectorRegistry())
    assert other.test_client().post("/metrics").data == b"taken"
    assert other.test_client().get("/metrics").status_code == 200
    assert other.test_client().get("/metrics").data != b"taken"


@pytest.mark.parametrize("first", ["app", "vantage"])
def test_own_route_wins_and_a_line_says_so(first: str, registry: CollectorRegistry, lines: ReadLines) -> None:
    app = Flask("own")
    blueprint = Blueprint("probes", __name__, url_prefix="/")
    blueprint.add_url_rule("/readyz", view_func=lambda: "mine")
    if first == "app":
        app.register_blueprint(blueprint)
    Vantage(app, registry=registry)
    if first == "vantage":
        app.register_blueprint(blueprint)
    client = app.test_client()
    client.get("/nowhere")
    assert [line["message"] for line in lines() if "/readyz" in line["message"]] != []
    assert client.get("/readyz").data == b"mine"
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert lines() == []


@pytest.mark.parametrize("first", ["app", "vantage"])
def test_mount_of_the_same_path_wins(first: str, registry: CollectorRegistry) -> None:
    # As the guide of prometheus_client shows it for Flask.
    app, theirs = Flask("mounted"), CollectorRegistry()

    def mount() -> None:
        mounts = {"/metrics": make_wsgi_app(theirs)}
        app.wsgi_app = DispatcherMiddleware(app.wsgi_app, mounts)  # type: ignore[method-assign]

    if first == "app":
        mount()
    Vantage(app, registry=registry)
    if first == "vantage":
        mount()
    client = app.test_client()
    assert b"vantage_build_info" not in client.get("/metrics").data
    assert client.get("/healthz").status_code == 200


def test_app_below_a_prefix_answers_there(app: Flask) -> None:
    front = Flask("front")
    front.wsgi_app = DispatcherMiddleware(front.wsgi_app, {"/shop": app})  # type: ignore[method-assign]
    client = front.test_client()
    assert client.get("/shop/healthz").status_code == 200
    assert client.get("/healthz").status_code == 404


def test_metrics_are_off_without_telemetry(registry: CollectorRegistry) -> None:
    app = Flask("plain")
    Vantage(app, registry=registry, settings=Settings(telemetry=False))
    assert app.test_client().get("/metrics").status_code == 404


def test_extension_adds_no_route(app: Flask) -> None:
    assert {rule.rule for rule in app.url_map.iter_rules()} & set(PATHS) == set()
    assert app.blueprints == {}
