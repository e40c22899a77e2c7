"""Validation of what a client sends, field by field; shared by both services."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest

from flask_vantage import Problem

MAX_BODY_BYTES = 1024 * 1024
MAX_PAGE = 100
DEFAULT_PAGE = 20
MAX_OFFSET = 1_000_000
MAX_QUANTITY = 100
# SQLite holds 63 bits; ids far below that are still more than any shop has.
MAX_ID = 2**31 - 1

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


def json_object() -> dict[str, object]:
    """Return the request's body; raises a 415 or 400 `Problem` when it is not a JSON object."""
    try:
        body: object = request.get_json()
    except BadRequest:
        raise Problem(400, "The body is not valid JSON.") from None
    except RecursionError:
        raise Problem(400, "The JSON is nested too deeply.") from None
    if not isinstance(body, dict):
        raise Problem(400, "The body must be a JSON object.")
    return body


def text_values(values: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Return the fields of a query or form, with digits converted to int."""
    return {name: int(text) if _DIGITS.fullmatch(text) else text for name, text in values}


def read_numbers(detail: str, values: Mapping[str, object], limits: Mapping[str, tuple[float, float]]) -> list[Any]:
    """Return the numbers in `values`, in the order of `limits`.

    `limits` maps each allowed field to its lowest and highest value; floats allow fractions. Raises a 422 `Problem`
    that names each invalid field.
    """
    # At most ten unknown names, which limits the response.
    unknown = sorted(set(values) - set(limits))[:10]
    errors = [{"field": name[:64], "detail": f"is unknown; allowed: {', '.join(limits)}"} for name in unknown]
    for field, (low, high) in limits.items():
        value: Any = values.get(field)
        if field not in values:
            reason = "is required"
        elif isinstance(value, bool) or not isinstance(value, (int, type(high))):
            reason = "must be a whole number" if isinstance(high, int) else "must be a number"
        elif not low <= value <= high:
            reason = f"must be {low} to {high}"
        else:
            continue
        errors.append({"field": field, "detail": reason})
    if errors:
        raise Problem(422, detail, errors=errors)
    return [values[field] for field in limits]


def order_request(values: Mapping[str, object]) -> list[int]:
    """Return product id and quantity of an order; raises a 422 `Problem`."""
    limits = {"product_id": (1, MAX_ID), "quantity": (1, MAX_QUANTITY)}
    return read_numbers("The order cannot be placed as it is.", values, limits)


def page_request() -> list[int]:
    """Return limit and offset of the query; raises a 422 `Problem`."""
    values = {"limit": DEFAULT_PAGE, "offset": 0, **text_values(request.args.items())}
    return read_numbers("The page cannot be listed.", values, {"limit": (1, MAX_PAGE), "offset": (0, MAX_OFFSET)})


def idempotency_key() -> str | None:
    """Return the Idempotency-Key header, or None; raises a 400 `Problem` when it is malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        detail = "must be 1 to 128 letters, digits, or one of . _ : -"
        error = {"field": "Idempotency-Key", "detail": detail}
        raise Problem(400, "The Idempotency-Key header is malformed.", errors=[error])
    return key
