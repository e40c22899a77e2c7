from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from conftest import ReadLines, assert_problem
from flask_vantage import SettingsError
from shop import client as client_module
from shop import storefront
from shop.client import Warehouse

Respond = Callable[[socket.socket], None]


def test_ping_answers_without_a_warehouse() -> None:
    app = storefront.create_app("http://127.0.0.1:1")
    assert app.test_client().get("/ping").get_data() == b"pong\n"
    assert app.test_client().get("/readyz").status_code == 200


def test_products_come_from_the_warehouse(shop: FlaskClient) -> None:
    assert shop.get("/products?limit=2&offset=1").get_json()["items"][0]["id"] == 2
    assert shop.get("/products/1").get_json()["name"] == "Brass compass"


def test_an_order_is_placed_and_read_back(shop: FlaskClient) -> None:
    response = shop.post("/orders", json={"product_id": 2, "quantity": 1})
    assert response.status_code == 201
    assert shop.get(response.headers["Location"]).get_json() == response.get_json()


def test_an_idempotency_key_reaches_the_warehouse(shop: FlaskClient) -> None:
    body = {"product_id": 2, "quantity": 1}
    answers = [shop.post("/orders", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]


def test_client_errors_of_the_warehouse_are_passed_on(shop: FlaskClient) -> None:
    assert_problem(shop.get("/products/99"), 404)
    assert_problem(shop.get(f"/orders/{'0' * 32}"), 404)
    response = shop.post("/orders", json={"product_id": 99, "quantity": 1})
    assert_problem(response, 422, "product_id")


@pytest.mark.parametrize("path", ["/orders/..", "/orders/a%2Fb", "/orders/x%20HTTP", "/products/-1"])
def test_malformed_id_never_reaches_the_warehouse(path: str) -> None:
    client = storefront.create_app("http://127.0.0.1:1").test_client()
    assert_problem(client.get(path), 404)


def test_invalid_input_never_reaches_the_warehouse() -> None:
    client = storefront.create_app("http://127.0.0.1:1").test_client()
    assert_problem(client.post("/orders", json={"product_id": 0}), 422, "product_id", "quantity")
    assert_problem(client.get("/products?limit=1000"), 422, "limit")
    assert_problem(client.post("/orders", data="x", content_type="text/plain"), 415)
    assert_problem(client.get("/products/9999999999"), 404)


def test_the_request_id_is_the_same_in_both_services(shop: FlaskClient, lines: ReadLines) -> None:
    shop.get("/products/1", headers={"X-Request-ID": "over-there"})
    assert [line["request_id"] for line in lines()] == ["over-there", "over-there"]


def test_page_lists_escaped_products_and_its_trace_id(shop: FlaskClient) -> None:
    response = shop.get("/", headers={"Accept": "text/html"})
    page = response.get_data(as_text=True)
    assert response.mimetype == "text/html"
    assert "Trail map &lt;North&gt;" in page
    assert "<North>" not in page
    assert "<script" not in page
    assert response.headers["X-Trace-Id"] in page
    assert response.headers["X-Request-ID"] in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_form_of_a_page_places_one_order_when_sent_twice(shop: FlaskClient) -> None:
    page = shop.get("/").get_data(as_text=True)
    key = re.search('name="key" value="([0-9a-f]+)"', page)
    assert key
    form = {"key": key[1], "product_id": "4", "quantity": "2"}
    first, second = (shop.post("/buy", data=form) for _ in range(2))
    assert first.status_code == 303
    assert first.headers["Location"] == second.headers["Location"]
    after = shop.get(first.headers["Location"]).get_data(as_text=True)
    assert "is placed: 2 for 24.00" in after.replace("\n", " ")


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ({}, ["product_id", "quantity"]),
        ({"product_id": "1", "quantity": "many"}, ["quantity"]),
        ({"product_id": "1", "quantity": "1", "x": "y"}, ["x"]),
        ({"product_id": "1", "quantity": "1", "key": "../x"}, ["key"]),
    ],
)
def test_invalid_form_names_each_invalid_field(shop: FlaskClient, form: dict[str, str], fields: list[str]) -> None:
    assert_problem(shop.post("/buy", data=form), 422, *fields)


@pytest.mark.parametrize("order", ["x", "<script>", "0" * 31])
def test_malformed_order_id_in_the_query_is_ignored(shop: FlaskClient, order: str) -> None:
    response = shop.get("/", query_string={"order": order})
    assert response.status_code == 200
    assert "is placed" not in response.get_data(as_text=True)


# Failures of the warehouse.


@pytest.fixture
def broken_warehouse() -> Iterator[Callable[[Respond], Flask]]:
    """Return a function that creates a storefront whose warehouse calls `respond` for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    apps: list[Flask] = []
    answer: list[Respond] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                answer[0](connection)

    thread = threading.Thread(target=accept)

    def make(respond: Respond) -> Flask:
        answer.append(respond)
        thread.start()
        app = storefront.create_app(f"http://127.0.0.1:{listener.getsockname()[1]}")
        apps.append(app)
        return app

    yield make
    # Closing alone would not wake up accept().
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for app in apps:
        app.extensions["warehouse"].pool.close()


def _answer(status: str, body: bytes) -> Respond:
    def respond(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )

    return respond


def test_warehouse_that_is_down_is_503(lines: ReadLines) -> None:
    client = storefront.create_app("http://127.0.0.1:1").test_client()
    response = client.get("/products")
    assert_problem(response, 503)
    assert response.headers["Retry-After"] == "1"
    assert_problem(client.post("/orders", json={"product_id": 1, "quantity": 1}), 503)
    causes = [line["cause"] for line in lines() if "cause" in line]
    assert causes == ["NewConnectionError", "NewConnectionError"]


def test_browser_gets_an_error_page_when_the_warehouse_is_down() -> None:
    client = storefront.create_app("http://127.0.0.1:1").test_client()
    response = client.get("/", headers={"Accept": "text/html"})
    assert (response.status_code, response.mimetype) == (503, "text/html")


def test_warehouse_that_does_not_answer_is_504(
    broken_warehouse: Callable[[Respond], Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT_SECONDS", 0.1)
    over = threading.Event()
    client = broken_warehouse(lambda connection: over.wait(5) and None).test_client()
    assert_problem(client.get("/products"), 504)
    over.set()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("500 Internal Server Error", b"{}"),
        ("503 Service Unavailable", b"{}"),
        ("401 Unauthorized", b"{}"),
        ("302 Found", b""),
        ("200 OK", b"<html>"),
        ("200 OK", b"[]"),
        ("200 OK", b"\xff"),
        ("404 Not Found", b"no json"),
    ],
)
def test_unexpected_answer_of_the_warehouse_is_502(
    broken_warehouse: Callable[[Respond], Flask], status: str, body: bytes
) -> None:
    client = broken_warehouse(_answer(status, body)).test_client()
    assert_problem(client.get("/products"), 502)


def test_broken_connection_is_retried_once_and_then_502(
    broken_warehouse: Callable[[Respond], Flask],
) -> None:
    calls: list[bytes] = []
    client = broken_warehouse(lambda c: calls.append(c.recv(65536))).test_client()
    response = client.post("/orders", json={"product_id": 1, "quantity": 1})
    assert_problem(response, 502)
    assert len(calls) == 2
    keys = [re.search(rb"Idempotency-Key: (\S+)", call) for call in calls]
    # With the same key, the second call would not place a second order.
    assert keys[0] is not None
    assert keys[1] is not None
    assert keys[0][1] == keys[1][1]


@pytest.mark.parametrize("url", ["warehouse:8000", "", "ftp://x", "http://", "http://[::1"])
def test_invalid_warehouse_url_names_the_variable(url: str) -> None:
    with pytest.raises(SettingsError, match="WAREHOUSE_URL"):
        Warehouse(url)


def test_warehouse_url_may_have_a_path(storefront_app: Flask) -> None:
    warehouse: Any = storefront_app.extensions["warehouse"]
    prefixed = Warehouse(f"http://{warehouse.pool.host}:{warehouse.pool.port}/products/")
    assert prefixed.get("/1")["id"] == 1
    prefixed.pool.close()
