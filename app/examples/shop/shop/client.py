"""The storefront's HTTP client of the warehouse."""

from __future__ import annotations

import json
from typing import Any

import urllib3
from loguru import logger
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from flask_vantage import Problem, current_request_id
from flask_vantage.settings import require_http_url

CONNECT_TIMEOUT_SECONDS = 0.5
READ_TIMEOUT_SECONDS = 3.0
_POOL_SIZE = 16
# Statuses about the client's own request are passed on.
_PASSED_ON = (404, 409, 422)

# Only while connecting: nothing was sent then, so even an order cannot be placed twice.
_RETRIES = urllib3.Retry(total=None, connect=2, read=0, redirect=0, status=0, other=0, backoff_factor=0.05)


class Warehouse:
    """Calls the warehouse at `url`; failures are raised as the `Problem` for the client."""

    def __init__(self, url: str) -> None:
        parts = require_http_url("WAREHOUSE_URL", url, "http://warehouse:8000")
        self._prefix = parts.path.rstrip("/")
        self._pool = urllib3.connection_from_url(
            url,
            maxsize=_POOL_SIZE,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
            retries=_RETRIES,
        )

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`; raises `Problem`."""
        return self._call("GET", path)[1]

    def place_order(self, product_id: int, quantity: int, key: str) -> tuple[int, dict[str, Any]]:
        """Return the status (201 new, 200 repeated) and the order; raises `Problem`."""
        body = json.dumps({"product_id": product_id, "quantity": quantity}).encode()
        return self._call("POST", "/orders", body, {"Content-Type": "application/json", "Idempotency-Key": key})

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        all_headers = {"Accept": "application/json", **(headers or {})}
        if (request_id := current_request_id()) is not None:
            all_headers["X-Request-ID"] = request_id
        try:
            response = self._send(method, path, body, all_headers)
        except HTTPError as error:
            raise _unavailable(error) from error
        payload = _json_object(response.data)
        if 200 <= response.status < 300:
            if payload is None:
                raise Problem(502, "The warehouse's answer is not a JSON object.")
            return response.status, payload
        if response.status in _PASSED_ON and payload is not None:
            detail = str(payload.get("detail", "The warehouse refused."))
            members = {name: payload[name] for name in ("available",) if name in payload}
            raise Problem(response.status, detail, errors=payload.get("errors") or (), **members)
        raise Problem(502, f"The warehouse answered with status {response.status}.")

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        url = self._prefix + path
        try:
            return self._pool.request(method, url, body=body, headers=headers)
        except (ProtocolError, MaxRetryError) as error:
            if not isinstance(_cause(error), ProtocolError):
                raise
            # The warehouse closed an idle connection of the pool. A retry is safe: reads change nothing, and an
            # order carries its idempotency key.
            logger.debug("The connection to the warehouse was stale; retrying.")
            return self._pool.request(method, url, body=body, headers=headers)


def _cause(error: HTTPError) -> BaseException | None:
    return error.reason if isinstance(error, MaxRetryError) else error


def _unavailable(error: HTTPError) -> Problem:
    cause = _cause(error)
    # A connect timeout is a timeout too, but nothing was sent: the warehouse is not there.
    if isinstance(cause, NewConnectionError | ConnectTimeoutError):
        status, detail = 503, "The warehouse cannot be reached."
    elif isinstance(cause, ReadTimeoutError):
        status, detail = 504, "The warehouse did not answer in time."
    else:
        status, detail = 502, "The connection to the warehouse broke."
    logger.bind(cause=type(cause).__name__, cause_message=str(cause)).warning(detail)
    return Problem(status, detail, headers={"Retry-After": "1"} if status == 503 else None)


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        payload: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None
