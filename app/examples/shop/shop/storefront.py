"""The public service: a page for browsers and an API for programs, on data of the warehouse."""

from __future__ import annotations

import os
import re
from typing import Any
from uuid import uuid4

from flask import Flask, Response, current_app, redirect, render_template, request
from werkzeug.wrappers import Response as WerkzeugResponse

from flask_vantage import Problem, Vantage, current_request_id, current_trace_id
from shop import faults
from shop.client import Warehouse
from shop.validation import (
    MAX_BODY_BYTES,
    MAX_ID,
    MAX_PAGE,
    idempotency_key,
    json_object,
    order_request,
    page_request,
    text_values,
)

_ORDER_ID = re.compile(r"[0-9a-f]{32}")
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"


def create_app(warehouse_url: str | None = None) -> Flask:
    """Return the storefront; `warehouse_url` defaults to $WAREHOUSE_URL, then to http://127.0.0.1:8001.

    Raises `SettingsError` for an invalid URL. The warehouse may be down: the storefront is ready without it, and
    answers 503 where it needs it.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    Vantage(app, problem_details=True)
    warehouse = Warehouse(warehouse_url or os.environ.get("WAREHOUSE_URL") or "http://127.0.0.1:8001")
    app.extensions["warehouse"] = warehouse
    faults.register(app)
    _add_page(app, warehouse)
    _add_api(app, warehouse)
    return app


def _add_page(app: Flask, warehouse: Warehouse) -> None:
    @app.get("/")
    def page() -> Response:
        products = warehouse.get(f"/products?limit={MAX_PAGE}").get("items", [])
        order_id = request.args.get("order", "")
        order = warehouse.get(f"/orders/{order_id}") if _ORDER_ID.fullmatch(order_id) else None
        # One key a page: pressing "Order" twice places one order.
        ids = {"key": uuid4().hex, "trace_id": current_trace_id(), "request_id": current_request_id()}
        response = Response(render_template("page.html", products=products, order=order, **ids))
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        return response

    @app.post("/buy")
    def buy() -> WerkzeugResponse:
        values = text_values(request.form.items())
        key = (str(values.pop("key", "")) or uuid4().hex)[:64]
        product_id, quantity = order_request(values)
        if not re.fullmatch(r"[0-9a-f]{1,64}", key):
            errors = [{"field": "key", "detail": "must be hexadecimal digits"}]
            raise Problem(422, "The form is damaged.", errors=errors)
        # The page has one key and a button for each product.
        _, order = warehouse.place_order(product_id, quantity, f"{key}-{product_id}-{quantity}")
        # 303: reloading the page that follows repeats nothing.
        return redirect(f"/?order={order.get('id', '')}", 303)


def _add_api(app: Flask, warehouse: Warehouse) -> None:
    @app.get("/ping")
    def ping() -> Response:
        """The cheapest route, which the benchmark calls: no warehouse, no template."""
        return current_app.response_class("pong\n", mimetype="text/plain")

    @app.get("/products")
    def list_products() -> dict[str, Any]:
        limit, offset = page_request()
        return warehouse.get(f"/products?limit={limit}&offset={offset}")

    @app.get("/products/<int:product_id>")
    def read_product(product_id: int) -> dict[str, Any]:
        if product_id > MAX_ID:
            raise Problem(404, "There is no product with this id.")
        return warehouse.get(f"/products/{product_id}")

    @app.post("/orders")
    def place_order() -> tuple[dict[str, Any], int, dict[str, str]]:
        # With a key, repeating a call that broke is safe.
        key = idempotency_key() or uuid4().hex
        product_id, quantity = order_request(json_object())
        status, order = warehouse.place_order(product_id, quantity, key)
        return order, status, {"Location": f"/orders/{order.get('id', '')}"}

    @app.get("/orders/<order_id>")
    def read_order(order_id: str) -> dict[str, Any]:
        # Validated here, since the id becomes a part of the warehouse's URL.
        if not _ORDER_ID.fullmatch(order_id):
            raise Problem(404, "There is no order with this id.")
        return warehouse.get(f"/orders/{order_id}")
