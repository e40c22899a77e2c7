"""What a client may send, checked field by field; shared by both services."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flask import request
from werkzeug.exceptions import BadRequest

from flask_vantage import Problem

MAX_PAGE = 100
DEFAULT_PAGE = 20
MAX_OFFSET = 1_000_000
MAX_QUANTITY = 100
# SQLite holds 63 bits; ids far below that are still beyond any shop.
MAX_ID = 2**31 - 1

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A wish to buy `quantity` pieces of one product."""

    product_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    offset: int


class Errors:
    """Collects what is wrong, so that one answer names every field."""

    def __init__(self) -> None:
        self._errors: list[dict[str, str]] = []

    def add(self, field: str, detail: str) -> None:
        """Note that `field` is wrong."""
        self._errors.append({"field": field, "detail": detail})

    def unknown(self, given: Collection[str], allowed: Collection[str]) -> None:
        """Note each name in `given` that is not allowed; at most ten, to bound the answer."""
        for name in sorted(set(given) - set(allowed))[:10]:
            self.add(name[:64], f"is unknown; allowed: {', '.join(allowed)}")

    def raise_any(self, detail: str, status: int = 422) -> None:
        """Raise a `Problem` when something was noted."""
        if self._errors:
            raise Problem(status, detail, errors=self._errors)


def json_object() -> dict[str, object]:
    """Return the request's body; raises 415 or 400 when it is no JSON object."""
    try:
        body: object = request.get_json()
    except BadRequest:
        raise Problem(400, "The body is not valid JSON.") from None
    except RecursionError:
        raise Problem(400, "The JSON is nested too deeply.") from None
    if not isinstance(body, dict):
        raise Problem(400, "The body must be a JSON object.")
    return body


def whole_number(
    errors: Errors, values: Mapping[str, object], field: str, low: int, high: int
) -> int:
    """Return the number in `field`, or note what is wrong and return `low`."""
    value = values.get(field)
    if field not in values:
        errors.add(field, "is required")
    elif isinstance(value, bool) or not isinstance(value, int):
        errors.add(field, "must be a whole number")
    elif not low <= value <= high:
        errors.add(field, f"must be {low} to {high}")
    else:
        return value
    return low


def order_request(values: Mapping[str, object]) -> OrderRequest:
    """Return the order that `values` ask for; raises 422 naming each wrong field."""
    errors = Errors()
    errors.unknown(values.keys(), ("product_id", "quantity"))
    wanted = OrderRequest(
        whole_number(errors, values, "product_id", 1, MAX_ID),
        whole_number(errors, values, "quantity", 1, MAX_QUANTITY),
    )
    errors.raise_any("The order cannot be placed as it is.")
    return wanted


def page_request() -> Page:
    """Return limit and offset of the query; raises 422 naming each wrong parameter."""
    errors = Errors()
    errors.unknown(request.args.keys(), ("limit", "offset"))
    values = {name: _number_or_text(text) for name, text in request.args.items()}
    page = Page(
        whole_number(errors, {"limit": DEFAULT_PAGE, **values}, "limit", 1, MAX_PAGE),
        whole_number(errors, {"offset": 0, **values}, "offset", 0, MAX_OFFSET),
    )
    errors.raise_any("The page cannot be listed.")
    return page


def form_values() -> dict[str, object]:
    """Return the fields of a submitted form, digits as numbers."""
    return {name: _number_or_text(text) for name, text in request.form.items()}


def _number_or_text(text: str) -> object:
    return int(text) if _DIGITS.fullmatch(text) else text


def idempotency_key() -> str | None:
    """Return the Idempotency-Key header; raises 400 when it is malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Problem(
            400,
            "The Idempotency-Key header must be 1 to 128 letters, digits, or one of . _ : -",
            errors=[{"field": "Idempotency-Key", "detail": "is malformed"}],
        )
    return key
