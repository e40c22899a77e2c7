"""The internal service: products, stock and orders."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from flask import Flask
from loguru import logger

from flask_vantage import Problem, SettingsError, Vantage
from shop import faults
from shop.store import Store
from shop.validation import MAX_BODY_BYTES, idempotency_key, json_object, order_request, page_request, read_numbers

_MAX_RESTOCK = 1_000_000


def create_app(database: str | None = None) -> Flask:
    """Return the warehouse on the SQLite file `database`, by default $WAREHOUSE_DATABASE or warehouse.db.

    Raises `SettingsError` for a file that cannot be opened.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    vantage = Vantage(app, problem_details=True)
    path = database or os.environ.get("WAREHOUSE_DATABASE") or "warehouse.db"
    try:
        store = Store(path)
    except sqlite3.Error as error:
        raise SettingsError(
            "WAREHOUSE_DATABASE",
            f"cannot open the database: {path!r} ({error})",
            "Use a file in a directory that this user may write to",
        ) from None
    app.extensions["store"] = store
    vantage.add_readiness_check("database", store.check)
    faults.register(app)
    _add_routes(app, store)
    return app


def _add_routes(app: Flask, store: Store) -> None:
    @app.get("/products")
    def list_products() -> dict[str, Any]:
        limit, offset = page_request()
        items, total = store.products(limit, offset)
        return {"items": items, "total": total, "limit": limit, "offset": offset}

    @app.get("/products/<int:product_id>")
    def read_product(product_id: int) -> dict[str, Any]:
        return store.product(product_id)

    @app.post("/products/<int:product_id>/restock")
    def restock(product_id: int) -> dict[str, Any]:
        (quantity,) = read_numbers("The product cannot be restocked.", json_object(), {"quantity": (1, _MAX_RESTOCK)})
        return store.restock(product_id, quantity)

    @app.post("/orders")
    def place_order() -> tuple[dict[str, Any], int, dict[str, str]]:
        key = idempotency_key()
        product_id, quantity = order_request(json_object())
        order, is_new = store.place_order(product_id, quantity, key)
        if is_new:
            logger.bind(order_id=order["id"], product_id=product_id).info("Order placed.")
        return order, 201 if is_new else 200, {"Location": f"/orders/{order['id']}"}

    @app.get("/orders/<order_id>")
    def read_order(order_id: str) -> dict[str, Any]:
        return store.order(order_id)

    @app.errorhandler(sqlite3.OperationalError)
    def answer_busy(error: sqlite3.OperationalError) -> Any:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise error
        logger.warning("The database is busy.")
        busy = Problem(503, "The warehouse is busy. Try again.", headers={"Retry-After": "1"})
        return app.handle_http_exception(busy)
