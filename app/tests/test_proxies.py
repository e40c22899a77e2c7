"""The client's address, scheme and host behind a reverse proxy."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest
from flask import Flask, request, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_vantage.proxies import TrustedProxies
from served import Serve

FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example.org",
    "X-Forwarded-Prefix": "/shop",
}
DIRECT = {"address": "172.29.0.1", "url": "http://localhost/"}


def answer(*trusted: str, proxy_fix: bool = False, **headers: str) -> Any:
    app = Flask("proxied")

    @app.get("/")
    def home() -> dict[str, str | None]:
        return {"address": request.remote_addr, "url": url_for("home", _external=True)}

    if proxy_fix:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    app.wsgi_app = TrustedProxies(app.wsgi_app, [ip_network(n) for n in trusted])  # type: ignore[method-assign]
    given = {name.replace("_", "-"): value for name, value in headers.items()} or FORWARDED
    return app.test_client().get("/", headers=given, environ_base={"REMOTE_ADDR": "172.29.0.1"}).json


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",), ("172.29.0.2",)])
@pytest.mark.parametrize("proxy_fix", [False, True])
def test_headers_of_a_client_that_is_not_trusted_change_nothing(trusted: tuple[str, ...], proxy_fix: bool) -> None:
    assert answer(*trusted, proxy_fix=proxy_fix) == DIRECT


@pytest.mark.parametrize("trusted", [("172.29.0.1",), ("10.0.0.0/8", "172.29.0.0/16")])
def test_headers_of_a_trusted_proxy_are_applied(trusted: tuple[str, ...]) -> None:
    assert answer(*trusted) == {"address": "203.0.113.9", "url": "https://shop.example.org/"}


def test_proxy_fix_of_the_app_finds_the_headers() -> None:
    expected = {"address": "203.0.113.9", "url": "https://shop.example.org/shop/"}
    assert answer("172.29.0.1", proxy_fix=True) == expected


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        ("198.51.100.7, 203.0.113.9", "203.0.113.9"),  # the first one is what the client claims
        ("203.0.113.9, 10.1.2.3", "203.0.113.9"),  # through two trusted proxies
        ("2001:db8::1", "2001:db8::1"),
        ("unknown", "172.29.0.1"),
        ("unknown, 10.1.2.3", "10.1.2.3"),
        ("", "172.29.0.1"),
    ],
)
def test_address_is_the_last_that_is_no_trusted_proxy(forwarded_for: str, address: str) -> None:
    found = answer("172.29.0.1", "10.0.0.0/8", X_Forwarded_For=forwarded_for)
    assert found["address"] == address


def test_server_takes_the_proxy_from_its_settings(serve: Serve) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_TRUSTED_PROXIES="127.0.0.0/8")
    body = json.loads(served.request("GET", "/", **FORWARDED)[2])
    assert body == {"address": "203.0.113.9", "url": "https://shop.example.org/"}
    served.stop()
    (line,) = [line for line in served.lines() if line.get("http_route") == "/"]
    assert line["client_address"] == "203.0.113.9"


def test_server_strips_the_headers_by_default(serve: Serve) -> None:
    served = serve("busy_app:plain")
    body = json.loads(served.request("GET", "/", **FORWARDED)[2])
    assert body == {"address": "127.0.0.1", "url": f"http://127.0.0.1:{served.port}/"}
