"""The internal service: what is on the shelves, and taking it from there."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from flask import Flask
from loguru import logger

from flask_vantage import Problem, SettingsError, Vantage
from shop import faults
from shop.store import KeyReused, OutOfStock, Store, UnknownProduct
from shop.validation import (
    MAX_ID,
    Errors,
    idempotency_key,
    json_object,
    order_request,
    page_request,
    whole_number,
)

_MAX_RESTOCK = 1_000_000


def create_app(database: str | None = None) -> Flask:
    """Return the warehouse on the SQLite file `database` (default: $WAREHOUSE_DATABASE).

    Raises `SettingsError` when the file cannot be used.
    """
    app = Flask(__name__)
    vantage = Vantage(app)
    path = database or os.environ.get("WAREHOUSE_DATABASE") or "warehouse.db"
    try:
        store = Store(path)
    except sqlite3.Error as error:
        raise SettingsError(
            "WAREHOUSE_DATABASE",
            f"{path!r} cannot be opened ({error})",
            "Name a file in a folder that this user may write to",
        ) from None
    app.extensions["store"] = store
    vantage.add_readiness_check("database", store.check)
    faults.register(app)
    _add_routes(app, store)
    return app


def _add_routes(app: Flask, store: Store) -> None:
    @app.get("/products")
    def list_products() -> dict[str, Any]:
        page = page_request()
        items, total = store.products(page.limit, page.offset)
        return {"items": items, "total": total, "limit": page.limit, "offset": page.offset}

    @app.get("/products/<int:product_id>")
    def read_product(product_id: int) -> dict[str, Any]:
        product = store.product(product_id) if product_id <= MAX_ID else None
        if product is None:
            raise _no_product()
        return product

    @app.post("/products/<int:product_id>/restock")
    def restock(product_id: int) -> dict[str, Any]:
        values = json_object()
        errors = Errors()
        errors.unknown(values.keys(), ("quantity",))
        quantity = whole_number(errors, values, "quantity", 1, _MAX_RESTOCK)
        errors.raise_any("The product cannot be restocked.")
        product = store.restock(product_id, quantity) if product_id <= MAX_ID else None
        if product is None:
            raise _no_product()
        return product

    @app.post("/orders")
    def place_order() -> tuple[dict[str, Any], int, dict[str, str]]:
        key = idempotency_key()
        wanted = order_request(json_object())
        try:
            order, new = store.place_order(wanted.product_id, wanted.quantity, key)
        except UnknownProduct:
            # 422 and not 404: the resource that was addressed, /orders, does exist.
            raise Problem(
                422,
                "The order cannot be placed as it is.",
                errors=[{"field": "product_id", "detail": "is no product"}],
            ) from None
        except OutOfStock as error:
            raise Problem(409, "Too few pieces are left.", available=error.available) from None
        except KeyReused:
            raise Problem(
                422,
                "The idempotency key was used for another order.",
                errors=[{"field": "Idempotency-Key", "detail": "belongs to another order"}],
            ) from None
        if new:
            logger.bind(order_id=order["id"], product_id=wanted.product_id).info("Order placed.")
        return order, 201 if new else 200, {"Location": f"/orders/{order['id']}"}

    @app.get("/orders/<order_id>")
    def read_order(order_id: str) -> dict[str, Any]:
        order = store.order(order_id)
        if order is None:
            raise Problem(404, "There is no order with this id.")
        return order

    @app.errorhandler(sqlite3.OperationalError)
    def database_busy(error: sqlite3.OperationalError) -> Any:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise error
        logger.warning("The database is busy.")
        busy = Problem(503, "The warehouse is busy. Try again.", headers={"Retry-After": "1"})
        return app.handle_http_exception(busy)


def _no_product() -> Problem:
    return Problem(404, "There is no product with this id.")
