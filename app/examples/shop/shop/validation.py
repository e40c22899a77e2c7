"""Validation of what a client sends, field by field; shared by both services."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from flask import request
from werkzeug.exceptions import BadRequest

from flask_vantage import Problem

MAX_PAGE = 100
DEFAULT_PAGE = 20
MAX_OFFSET = 1_000_000
MAX_QUANTITY = 100
# SQLite holds 63 bits; ids far below that are still more than any shop has.
MAX_ID = 2**31 - 1

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)

# One per invalid field: {"field": name, "detail": reason}.
Errors = list[dict[str, str]]


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


def unknown_fields(given: Iterable[str], allowed: Sequence[str]) -> Errors:
    """Return an error for each name that is not allowed; at most ten, which limits the response."""
    unknown = sorted(set(given) - set(allowed))[:10]
    return [{"field": name[:64], "detail": f"is unknown; allowed: {', '.join(allowed)}"} for name in unknown]


def whole_number(errors: Errors, values: Mapping[str, object], field: str, low: int, high: int) -> int:
    """Return the integer in `field`, or append to `errors` and return `low`."""
    value = values.get(field)
    if field not in values:
        detail = "is required"
    elif isinstance(value, bool) or not isinstance(value, int):
        detail = "must be a whole number"
    elif not low <= value <= high:
        detail = f"must be {low} to {high}"
    else:
        return value
    errors.append({"field": field, "detail": detail})
    return low


def whole_numbers(
    detail: str, values: Mapping[str, object], limits: Mapping[str, tuple[int, int]], **defaults: int
) -> list[int]:
    """Return the integers in `values`, in the order of `limits`.

    `limits` maps each allowed field to its lowest and highest value. Raises a 422 `Problem` naming each invalid field.
    """
    errors = unknown_fields(values, tuple(limits))
    numbers = [whole_number(errors, {**defaults, **values}, field, *limit) for field, limit in limits.items()]
    if errors:
        raise Problem(422, detail, errors=errors)
    return numbers


def order_request(values: Mapping[str, object]) -> list[int]:
    """Return product id and quantity of an order; raises a 422 `Problem`."""
    limits = {"product_id": (1, MAX_ID), "quantity": (1, MAX_QUANTITY)}
    return whole_numbers("The order cannot be placed as it is.", values, limits)


def page_request() -> list[int]:
    """Return limit and offset of the query; raises a 422 `Problem`."""
    limits = {"limit": (1, MAX_PAGE), "offset": (0, MAX_OFFSET)}
    values = text_values(request.args.items())
    return whole_numbers("The page cannot be listed.", values, limits, limit=DEFAULT_PAGE, offset=0)


def idempotency_key() -> str | None:
    """Return the Idempotency-Key header, or None; raises a 400 `Problem` when it is malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        detail = "must be 1 to 128 letters, digits, or one of . _ : -"
        error = {"field": "Idempotency-Key", "detail": detail}
        raise Problem(400, "The Idempotency-Key header is malformed.", errors=[error])
    return key
