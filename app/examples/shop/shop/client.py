"""The storefront's HTTP client of the warehouse."""

from __future__ import annotations

from typing import Any

import urllib3
from loguru import logger
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError, ReadTimeoutError

from flask_vantage import Problem, current_request_id
from flask_vantage.settings import require_http_url

CONNECT_TIMEOUT_SECONDS = 0.5
READ_TIMEOUT_SECONDS = 3.0
_POOL_SIZE = 16
# Statuses about the client's own request are passed on.
_PASSED_ON = (404, 409, 422)

# Only while connecting: nothing was sent then, so even an order cannot be placed twice.
_RETRIES = urllib3.Retry(total=None, connect=2, read=False, status=0, other=0, backoff_factor=0.05)


class Warehouse:
    """Calls the warehouse at `url`; failures are raised as the `Problem` for the client."""

    def __init__(self, url: str) -> None:
        parts = require_http_url("WAREHOUSE_URL", url, "http://warehouse:8000")
        self._prefix = parts.path.rstrip("/")
        self.pool = urllib3.connection_from_url(
            url,
            maxsize=_POOL_SIZE,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
            retries=_RETRIES,
        )

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`; raises `Problem`."""
        return self._call("GET", path)[1]

    def place_order(self, product_id: int, quantity: int, key: str) -> tuple[int, dict[str, Any]]:
        """Return the status (201 new, 200 repeated) and the order; raises `Problem`."""
        order = {"product_id": product_id, "quantity": quantity}
        return self._call("POST", "/orders", {"Idempotency-Key": key}, json=order)

    def _call(
        self, method: str, path: str, headers: dict[str, str] | None = None, **body: Any
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Accept": "application/json", **(headers or {})}
        if (request_id := current_request_id()) is not None:
            headers["X-Request-ID"] = request_id
        request = {"method": method, "url": self._prefix + path, "headers": headers, "redirect": False, **body}
        try:
            try:
                response = self.pool.request(**request)
            except ProtocolError:
                # The warehouse closed an idle connection of the pool. A retry is safe: reads change nothing, and an
                # order carries its idempotency key.
                logger.debug("The connection to the warehouse was stale; retrying.")
                response = self.pool.request(**request)
        except HTTPError as error:
            raise _unavailable(error) from error
        try:
            payload = response.json()
        except (ValueError, RecursionError):
            payload = None
        if isinstance(payload, dict):
            if 200 <= response.status < 300:
                return response.status, payload
            if response.status in _PASSED_ON:
                detail = str(payload.get("detail", "The warehouse refused."))
                members = {name: payload[name] for name in ("available",) if name in payload}
                raise Problem(response.status, detail, errors=payload.get("errors") or (), **members)
        raise Problem(502, f"The warehouse's answer is unexpected: status {response.status}.")


def _unavailable(error: HTTPError) -> Problem:
    cause: Any = error
    if isinstance(error, MaxRetryError):
        # Nothing was sent, not even when connecting timed out: the warehouse is not there.
        status, detail, cause = 503, "The warehouse cannot be reached.", error.reason
    elif isinstance(error, ReadTimeoutError):
        status, detail = 504, "The warehouse did not answer in time."
    else:
        status, detail = 502, "The connection to the warehouse broke."
    logger.bind(cause=type(cause).__name__, cause_message=str(cause)).warning(detail)
    return Problem(status, detail, headers={"Retry-After": "1"} if status == 503 else None)
