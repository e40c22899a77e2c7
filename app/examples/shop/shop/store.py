"""The warehouse's products and orders in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from flask_vantage import Problem

BUSY_TIMEOUT_SECONDS = 2.0

# synchronous = FULL: an acknowledged order survives a power cut.
_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS products (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    stock INTEGER NOT NULL CHECK (stock >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY,
    product_id INTEGER NOT NULL REFERENCES products (id),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    total_cents INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    idempotency_key TEXT UNIQUE
) STRICT;
"""

_ORDER = "id, product_id, quantity, total_cents, created_at"
_INITIAL_STOCK = 100_000
_PRODUCTS = (
    ("Brass compass", "Points north, mostly.", 2450),
    ("Canvas rucksack", "Thirty litres and two honest buckles.", 6900),
    ("Enamel mug", "Survives falls, chips with dignity.", 950),
    ("Field notebook", "Ninety-six pages of weatherproof paper.", 1200),
    ("Folding stool", "Sits where you are.", 3400),
    ("Gas lantern", "Warm light for long evenings.", 4800),
    ("Head torch", "Three hundred lumens, one button.", 2900),
    ("Hemp rope, 20 m", "Holds more than you should hang on it.", 1800),
    ("Pocket telescope", "Eight times nearer.", 5600),
    ("Signal whistle", "Loud.", 450),
    ("Trail map <North>", "Folded right exactly once, at the factory.", 1100),
    ("Wool blanket", "Itches only when cold.", 7200),
)


class Store:
    """Products and orders. Safe to use from any thread: they share one connection, one at a time."""

    def __init__(self, path: str) -> None:
        """Open the file `path`; a new one gets the products. Raises sqlite3.Error."""
        self._lock = Lock()
        self._tracer = trace.get_tracer("shop.store")
        # Autocommit, because transactions are written out below. Vantage traces no connection of a class that is named:
        # `_query` makes spans with the table's name.
        self.connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=sqlite3.Connection,
        )
        self.connection.row_factory = sqlite3.Row
        try:
            self.connection.executescript(_SCHEMA)
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                self.connection.executemany(
                    "INSERT OR IGNORE INTO products (name, description, price_cents, stock)"
                    f" VALUES (?, ?, ?, {_INITIAL_STOCK})",
                    _PRODUCTS,
                )
        except sqlite3.Error:
            self.connection.close()
            raise

    def check(self) -> None:
        """Raise sqlite3.Error when the file cannot be read."""
        with self._lock:
            self.connection.execute("SELECT id FROM products LIMIT 1").fetchone()

    def products(self, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Return at most `limit` products by id, from `offset` on, and the number of all."""
        with self._query("SELECT", "products") as execute:
            rows = execute("SELECT * FROM products ORDER BY id LIMIT ? OFFSET ?", (limit, offset)).fetchall()
            (total,) = execute("SELECT count(*) FROM products").fetchone()
        return [dict(row) for row in rows], total

    def product(self, product_id: int) -> dict[str, Any]:
        """Return one product; raises a 404 `Problem`."""
        return self._one("SELECT", "products", "SELECT * FROM products WHERE id = ?", product_id)

    def order(self, order_id: str) -> dict[str, Any]:
        """Return one order; raises a 404 `Problem`."""
        return self._one("SELECT", "orders", f"SELECT {_ORDER} FROM orders WHERE id = ?", order_id)

    def restock(self, product_id: int, quantity: int) -> dict[str, Any]:
        """Add `quantity` pieces to the stock and return the product; raises a 404 `Problem`."""
        sql = "UPDATE products SET stock = stock + ? WHERE id = ? RETURNING *"
        return self._one("UPDATE", "products", sql, quantity, product_id)

    def place_order(self, product_id: int, quantity: int, key: str | None) -> tuple[dict[str, Any], bool]:
        """Take `quantity` pieces from the stock and record the order, in one transaction.

        Returns the order and whether it is new: the same idempotency `key` gives the first order again.
        Raises a `Problem` for an unknown product, too few pieces, or the key of another order.
        """
        with self._query("INSERT", "orders") as execute, self.connection:
            # IMMEDIATE takes the write lock at once: two orders cannot both have read the last piece.
            execute("BEGIN IMMEDIATE")
            earlier = execute(f"SELECT {_ORDER} FROM orders WHERE idempotency_key = ?", (key,)).fetchone()
            if earlier is not None:
                if (earlier["product_id"], earlier["quantity"]) != (product_id, quantity):
                    errors = [{"field": "Idempotency-Key", "detail": "belongs to another order"}]
                    raise Problem(422, "The idempotency key was used for another order.", errors=errors)
                return dict(earlier), False
            product = execute("SELECT price_cents, stock FROM products WHERE id = ?", (product_id,)).fetchone()
            if product is None:
                # 422 and not 404: the resource that was addressed, /orders, does exist.
                errors = [{"field": "product_id", "detail": "is unknown"}]
                raise Problem(422, "The order cannot be placed as it is.", errors=errors)
            if product["stock"] < quantity:
                raise Problem(409, "Not enough pieces in stock.", available=product["stock"])
            execute("UPDATE products SET stock = stock - ? WHERE id = ?", (quantity, product_id))
            created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            row = execute(
                f"INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?) RETURNING {_ORDER}",
                (uuid4().hex, product_id, quantity, quantity * product["price_cents"], created_at, key),
            ).fetchone()
            return dict(row), True

    def _one(self, operation: str, table: str, sql: str, *parameters: object) -> dict[str, Any]:
        try:
            with self._query(operation, table) as execute:
                row = execute(sql, parameters).fetchone()
        except OverflowError:  # an id of more than SQLite's 63 bits
            row = None
        if row is None:
            raise Problem(404, f"There is no {table.removesuffix('s')} with this id.")
        return dict(row)

    @contextmanager
    def _query(self, operation: str, table: str) -> Iterator[Any]:
        # https://opentelemetry.io/docs/specs/semconv/database/database-spans/
        attributes = {"db.system.name": "sqlite", "db.operation.name": operation, "db.collection.name": table}
        with self._tracer.start_as_current_span(
            f"{operation} {table}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                with self._lock:
                    yield self.connection.execute
            except sqlite3.Error as error:
                # Only the database's own errors count as failed: a product that is out of stock is none.
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise
