"""Faults on demand: latency and errors that an operator switches on to have something to see."""

from __future__ import annotations

import os
import random
import time
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from flask import Blueprint, Flask, Response, request
from loguru import logger

from flask_vantage import Problem, SettingsError
from shop.validation import Errors, json_object, unknown_fields, whole_number

MAX_LATENCY_MS = 10_000
_MAX_SEED = 2**31 - 1


class InjectedFault(RuntimeError):
    """The exception that a fault raises; never a real error."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Added latency in milliseconds and the share (0 to 1) of requests that fail; `routes` None means all."""

    latency_ms: int = 0
    error_rate: float = 0.0
    routes: tuple[str, ...] | None = None
    seed: int | None = None


class FaultSwitch:
    """The faults of one app and the random numbers that decide which request fails."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = Lock()
        self._set(Faults())

    def _set(self, faults: Faults) -> None:
        with self._lock:
            self._faults = faults
            # The same seed fails the same requests, so that a demonstration can be repeated.
            self._random = random.Random(faults.seed)

    def inject(self) -> None:
        """Delay the current request or raise `InjectedFault`, as switched."""
        faults = self._faults
        if request.url_rule is None or (request.endpoint or "").startswith(("vantage.", "faults.")):
            return
        if faults.routes is not None and request.url_rule.rule not in faults.routes:
            return
        if faults.latency_ms:
            time.sleep(faults.latency_ms / 1000)
        if faults.error_rate:
            with self._lock:
                fails = self._random.random() < faults.error_rate
            if fails:
                raise InjectedFault(f"injected by /faults with error_rate {faults.error_rate:g}")

    def read(self) -> dict[str, Any]:
        """Answer with the current faults."""
        return asdict(self._faults)

    def replace(self) -> dict[str, Any]:
        """Switch to the faults in the request's body."""
        self._set(self._requested())
        logger.bind(**{f"fault_{k}": v for k, v in self.read().items()}).warning("The injected faults were changed.")
        return self.read()

    def clear(self) -> Response:
        """Switch all faults off."""
        self._set(Faults())
        logger.warning("The injected faults were switched off.")
        response = Response(status=204)
        del response.headers["Content-Type"]
        return response

    def _requested(self) -> Faults:
        values: dict[str, Any] = {"latency_ms": 0, "error_rate": 0.0, "routes": None, "seed": None, **json_object()}
        errors = unknown_fields(values, ("latency_ms", "error_rate", "routes", "seed"))
        latency = whole_number(errors, values, "latency_ms", 0, MAX_LATENCY_MS)
        rate, routes, seed = values["error_rate"], values["routes"], values["seed"]
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            errors.append({"field": "error_rate", "detail": "must be a number from 0 to 1"})
        if seed is not None:
            whole_number(errors, values, "seed", 0, _MAX_SEED)
        errors += self._route_errors(routes)
        if errors:
            raise Problem(422, "The faults are unchanged.", errors=errors)
        return Faults(latency, float(rate), None if routes is None else tuple(routes), seed)

    def _route_errors(self, routes: Any) -> Errors:
        rules = self._app.url_map.iter_rules()
        known = {rule.rule for rule in rules if not rule.endpoint.startswith(("vantage.", "faults."))}
        if routes is None:
            return []
        if not isinstance(routes, list) or not all(isinstance(route, str) for route in routes):
            return [{"field": "routes", "detail": "must be a list of route templates"}]
        unknown = [route[:64] for route in routes if route not in known][:10]
        return [{"field": "routes", "detail": f"{r!r} is unknown; known: {', '.join(sorted(known))}"} for r in unknown]


def register(app: Flask) -> None:
    """Add `/faults` to `app` when SHOP_FAULTS=on (default: off); raises `SettingsError`."""
    value = os.environ.get("SHOP_FAULTS", "").strip().lower() or "off"
    if value not in ("on", "off"):
        raise SettingsError("SHOP_FAULTS", f"not a switch: {value!r} (on, off)", "Use on or off")
    if value == "off":
        return
    switch = FaultSwitch(app)
    blueprint = Blueprint("faults", __name__)
    blueprint.get("/faults")(switch.read)
    blueprint.put("/faults")(switch.replace)
    blueprint.delete("/faults")(switch.clear)
    app.register_blueprint(blueprint)
    app.before_request(switch.inject)
