from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry.sdk.trace import ReadableSpan

from conftest import assert_problem
from flask_vantage import Problem, SettingsError
from shop import warehouse
from shop.store import Store

Spans = Callable[[], tuple[ReadableSpan, ...]]


@pytest.fixture
def client(warehouse_app: Flask) -> FlaskClient:
    return warehouse_app.test_client()


@pytest.fixture
def store(warehouse_app: Flask) -> Store:
    found: Store = warehouse_app.extensions["store"]
    return found


def order(client: FlaskClient, body: Any, **headers: str) -> Any:
    return client.post("/orders", json=body, headers=headers)


def test_products_are_listed_in_pages(client: FlaskClient) -> None:
    first = client.get("/products?limit=5").get_json()
    rest = client.get("/products?limit=100&offset=5").get_json()
    assert first["total"] == 12
    assert [p["id"] for p in first["items"] + rest["items"]] == list(range(1, 13))
    assert client.get("/products?offset=1000").get_json()["items"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1e2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("offset=-1", "offset"),
        ("offset=1000001", "offset"),
        ("page=2", "page"),
    ],
)
def test_invalid_page_names_the_parameter(client: FlaskClient, query: str, field: str) -> None:
    assert_problem(client.get(f"/products?{query}"), 422, field)


def test_one_product_is_read(client: FlaskClient) -> None:
    product = client.get("/products/3").get_json()
    assert product["name"] == "Enamel mug"
    assert product["price_cents"] == 950


@pytest.mark.parametrize("product_id", ["0", "13", "2147483648", "9" * 40])
def test_unknown_product_is_404(client: FlaskClient, product_id: str) -> None:
    assert_problem(client.get(f"/products/{product_id}"), 404)
    path = f"/products/{product_id}/restock"
    assert_problem(client.post(path, json={"quantity": 1}), 404)


def test_order_reduces_the_stock_and_can_be_read(client: FlaskClient) -> None:
    before = client.get("/products/1").get_json()["stock"]
    response = order(client, {"product_id": 1, "quantity": 3})
    assert response.status_code == 201
    placed = response.get_json()
    assert placed["total_cents"] == 3 * 2450
    assert client.get(response.headers["Location"]).get_json() == placed
    assert client.get("/products/1").get_json()["stock"] == before - 3


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["product_id", "quantity"]),
        ({"product_id": 1}, ["quantity"]),
        ({"product_id": "1", "quantity": 1}, ["product_id"]),
        ({"product_id": True, "quantity": 1}, ["product_id"]),
        ({"product_id": 1.0, "quantity": 1}, ["product_id"]),
        ({"product_id": None, "quantity": [1]}, ["product_id", "quantity"]),
        ({"product_id": 1, "quantity": 0}, ["quantity"]),
        ({"product_id": 1, "quantity": 101}, ["quantity"]),
        ({"product_id": 10**30, "quantity": 1}, ["product_id"]),
        ({"product_id": 1, "quantity": 1, "price": 0}, ["price"]),
        ({"product_id": 99, "quantity": 1}, ["product_id"]),
    ],
)
def test_invalid_order_names_each_invalid_field(client: FlaskClient, body: dict[str, Any], fields: list[str]) -> None:
    assert_problem(order(client, body), 422, *fields)


@pytest.mark.parametrize("body", ["", "{", "[]", "1", "null", '"x"', "\xff", "[" * 100_000])
def test_body_other_than_a_json_object_is_400(client: FlaskClient, body: str) -> None:
    data = body.encode("latin-1")
    assert_problem(client.post("/orders", data=data, content_type="application/json"), 400)


def test_the_last_piece_is_sold_once(store: Store) -> None:
    store.connection.execute("UPDATE products SET stock = 5 WHERE id = 1")
    outcomes: list[str] = []

    def buy() -> None:
        try:
            store.place_order(1, 1, None)
            outcomes.append("sold")
        except Problem as problem:
            outcomes.append("none left" if problem.code == 409 else "failed")

    threads = [threading.Thread(target=buy) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["none left"] * 7 + ["sold"] * 5
    assert store.product(1)["stock"] == 0


def test_order_above_the_stock_is_409_and_takes_nothing(client: FlaskClient, store: Store) -> None:
    store.connection.execute("UPDATE products SET stock = 2 WHERE id = 1")
    body = assert_problem(order(client, {"product_id": 1, "quantity": 3}), 409)
    assert body["available"] == 2
    assert client.get("/products/1").get_json()["stock"] == 2
    assert client.post("/products/1/restock", json={"quantity": 5}).get_json()["stock"] == 7


def test_an_idempotency_key_places_one_order(client: FlaskClient) -> None:
    before = client.get("/products/1").get_json()["stock"]
    headers = {"Idempotency-Key": "k-1"}
    body = {"product_id": 1, "quantity": 2}
    first = client.post("/orders", json=body, headers=headers)
    second = client.post("/orders", json=body, headers=headers)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.get_json() == second.get_json()
    assert client.get("/products/1").get_json()["stock"] == before - 2
    other = client.post("/orders", json={"product_id": 2, "quantity": 2}, headers=headers)
    assert_problem(other, 422, "Idempotency-Key")


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "é"])
def test_malformed_idempotency_key_is_400(client: FlaskClient, key: str) -> None:
    body = {"product_id": 1, "quantity": 1}
    response = client.post("/orders", json=body, headers={"Idempotency-Key": key})
    assert_problem(response, 400, "Idempotency-Key")


@pytest.mark.parametrize("order_id", ["x", "0" * 32, "%00", "' OR 1=1 --"])
def test_unknown_order_is_404(client: FlaskClient, order_id: str) -> None:
    assert_problem(client.get(f"/orders/{order_id}"), 404)


def test_products_and_orders_survive_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "w.db")
    first = Store(path)
    placed, _ = first.place_order(1, 1, None)
    stock = first.product(1)
    first.connection.close()
    second = Store(path)
    assert second.order(placed["id"]) == placed
    assert second.product(1) == stock
    assert second.products(100, 0)[1] == 12
    second.connection.close()


def test_rejected_order_is_not_a_database_error(store: Store, spans: Spans) -> None:
    with pytest.raises(Problem):
        store.place_order(99, 1, None)
    store.place_order(1, 1, "key")
    with pytest.raises(Problem):
        store.place_order(1, 2, "key")
    assert all(span.status.is_unset for span in spans())


def test_locked_database_is_503_with_retry_after(client: FlaskClient, store: Store, tmp_path: Path) -> None:
    store.connection.execute("PRAGMA busy_timeout = 50")
    blocker = sqlite3.connect(tmp_path / "warehouse.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    response = order(client, {"product_id": 1, "quantity": 1})
    assert_problem(response, 503)
    assert response.headers["Retry-After"] == "1"
    blocker.execute("ROLLBACK")
    blocker.close()
    assert order(client, {"product_id": 1, "quantity": 1}).status_code == 201


def test_file_that_cannot_be_opened_names_the_variable(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "w.db")
    with pytest.raises(SettingsError) as caught:
        warehouse.create_app(path)
    assert caught.value.variable == "WAREHOUSE_DATABASE"
    assert path in caught.value.reason


def test_damaged_file_names_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(SettingsError, match="WAREHOUSE_DATABASE"):
        warehouse.create_app(str(path))


def test_closed_database_is_not_ready(client: FlaskClient, store: Store) -> None:
    assert client.get("/readyz").status_code == 200
    store.connection.close()
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["checks"]["database"]["status"] == "failed"
