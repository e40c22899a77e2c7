"""The warehouse's shelves and order book in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from queue import Empty, LifoQueue
from typing import Any
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

_BUSY_TIMEOUT_SECONDS = 2.0

_SCHEMA = """
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

_SEED_STOCK = 100_000
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


class UnknownProduct(LookupError):
    """There is no product with this id."""


class OutOfStock(Exception):
    """Fewer pieces are left than were asked for."""

    def __init__(self, available: int) -> None:
        super().__init__(f"{available} left")
        self.available = available


class KeyReused(Exception):
    """The idempotency key belongs to an order for something else."""


class Store:
    """Products and orders. Every method may be called from any thread."""

    def __init__(self, path: str) -> None:
        """Open the file, creating and seeding it when it is new; raises sqlite3.Error."""
        self._path = path
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._tracer = trace.get_tracer("shop.store")
        with self._connection() as connection:
            connection.executescript(_SCHEMA)
            with self._transaction(connection):
                connection.executemany(
                    "INSERT OR IGNORE INTO products (name, description, price_cents, stock)"
                    f" VALUES (?, ?, ?, {_SEED_STOCK})",
                    _PRODUCTS,
                )

    def check(self) -> None:
        """Raise sqlite3.Error when the file cannot be read."""
        with self._connection() as connection:
            connection.execute("SELECT id FROM products LIMIT 1").fetchone()

    def products(self, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Return one page of the products, by id, and the number of all."""
        with self._span("SELECT", "products"), self._connection() as connection:
            rows = connection.execute(
                "SELECT * FROM products ORDER BY id LIMIT ? OFFSET ?", (limit, offset)
            ).fetchall()
            (total,) = connection.execute("SELECT count(*) FROM products").fetchone()
        return [dict(row) for row in rows], total

    def product(self, product_id: int) -> dict[str, Any] | None:
        """Return one product, or None."""
        with self._span("SELECT", "products"), self._connection() as connection:
            row = connection.execute(
                "SELECT * FROM products WHERE id = ?", (product_id,)
            ).fetchone()
        return None if row is None else dict(row)

    def order(self, order_id: str) -> dict[str, Any] | None:
        """Return one order, or None."""
        with self._span("SELECT", "orders"), self._connection() as connection:
            row = connection.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
        return None if row is None else _public_order(row)

    def place_order(
        self, product_id: int, quantity: int, key: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Take `quantity` pieces off the shelf and note the order, both or neither.

        Returns the order and whether it is new: the same `key` gives the first order again.
        Raises `UnknownProduct`, `OutOfStock` or `KeyReused`.
        """
        with (
            self._span("INSERT", "orders"),
            self._connection() as connection,
            self._transaction(connection),
        ):
            if key is not None:
                earlier = connection.execute(
                    "SELECT * FROM orders WHERE idempotency_key = ?", (key,)
                ).fetchone()
                if earlier is not None:
                    if (earlier["product_id"], earlier["quantity"]) != (product_id, quantity):
                        raise KeyReused(key)
                    return _public_order(earlier), False
            product = connection.execute(
                "SELECT price_cents, stock FROM products WHERE id = ?", (product_id,)
            ).fetchone()
            if product is None:
                raise UnknownProduct(product_id)
            taken = connection.execute(
                "UPDATE products SET stock = stock - ? WHERE id = ? AND stock >= ?",
                (quantity, product_id, quantity),
            )
            if taken.rowcount == 0:
                raise OutOfStock(product["stock"])
            row = connection.execute(
                "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
                (
                    uuid4().hex,
                    product_id,
                    quantity,
                    quantity * product["price_cents"],
                    datetime.now(UTC).isoformat(timespec="milliseconds"),
                    key,
                ),
            ).fetchone()
            return _public_order(row), True

    def restock(self, product_id: int, quantity: int) -> dict[str, Any] | None:
        """Put `quantity` pieces on the shelf and return the product, or None."""
        with self._span("UPDATE", "products"), self._connection() as connection:
            row = connection.execute(
                "UPDATE products SET stock = stock + ? WHERE id = ? RETURNING *",
                (quantity, product_id),
            ).fetchone()
        return None if row is None else dict(row)

    def close(self) -> None:
        """Close the connections that are not in use."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # A pool, because opening costs as much as a query, and a connection per thread would pile
        # up under a server that starts a thread for each request.
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = self._open()
        try:
            yield connection
        except sqlite3.Error:
            # Whatever state it is in now, the next one starts with a fresh connection.
            connection.close()
            raise
        except BaseException:
            self._idle.put(connection)
            raise
        self._idle.put(connection)

    def _open(self) -> sqlite3.Connection:
        # Autocommit, because the transactions are written out below. The pool lends a connection
        # to one thread at a time, but not always to the same.
        connection = sqlite3.connect(
            self._path,
            timeout=_BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.row_factory = sqlite3.Row
            # FULL: an order that was acknowledged survives a power cut.
            connection.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            )
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        # IMMEDIATE takes the write lock at once: two orders cannot both have read the last piece.
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _span(self, operation: str, table: str) -> Iterator[None]:
        # https://opentelemetry.io/docs/specs/semconv/database/database-spans/
        with self._tracer.start_as_current_span(
            f"{operation} {table}",
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": "sqlite",
                "db.operation.name": operation,
                "db.collection.name": table,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except sqlite3.Error as error:
                # An empty shelf is no failure of the database, so only its own errors count.
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise


def _public_order(row: sqlite3.Row) -> dict[str, Any]:
    order = dict(row)
    del order["idempotency_key"]
    return order
