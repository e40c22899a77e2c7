"""Trouble on demand: latency and errors that an operator switches on to have something to see."""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from flask import Blueprint, Flask, Response, request
from loguru import logger

from flask_vantage import SettingsError
from shop.validation import Errors, json_object, whole_number

MAX_LATENCY_MS = 10_000
_MAX_SEED = 2**31 - 1


class InjectedFault(RuntimeError):
    """The error that a fault raises; never a real one."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong: added latency in milliseconds, and the share of requests that fail."""

    latency_ms: int = 0
    error_rate: float = 0.0
    routes: tuple[str, ...] | None = None
    seed: int | None = None

    def applies_to(self, route: str) -> bool:
        """Tell whether requests to `route` suffer; no list of routes means all do."""
        return self.routes is None or route in self.routes


class FaultSwitch:
    """The faults of one app and the dice that decide which request fails."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._set(Faults())

    def _set(self, faults: Faults) -> None:
        with self._lock:
            self._faults = faults
            # The same seed fails the same requests, so that a demonstration can be repeated.
            self._random = random.Random(faults.seed)

    def suffer(self) -> None:
        """Slow the current request down or fail it, as the switch says."""
        faults = self._faults
        if request.url_rule is None or (request.endpoint or "").startswith(("vantage.", "faults.")):
            return
        if not faults.applies_to(request.url_rule.rule):
            return
        if faults.latency_ms:
            time.sleep(faults.latency_ms / 1000)
        if faults.error_rate:
            with self._lock:
                unlucky = self._random.random() < faults.error_rate
            if unlucky:
                raise InjectedFault(f"injected by /faults with error_rate {faults.error_rate:g}")

    def read(self) -> dict[str, Any]:
        """Answer with the faults that are on."""
        return asdict(self._faults)

    def replace(self) -> dict[str, Any]:
        """Switch to the faults in the request's body."""
        self._set(self._requested())
        logger.bind(**{f"fault_{k}": v for k, v in self.read().items()}).warning(
            "The injected faults were changed."
        )
        return self.read()

    def clear(self) -> Response:
        """Switch every fault off."""
        self._set(Faults())
        logger.warning("The injected faults were switched off.")
        answer = Response(status=204)
        # Without a body there is no type of one.
        del answer.headers["Content-Type"]
        return answer

    def _requested(self) -> Faults:
        values = json_object()
        errors = Errors()
        errors.unknown(values.keys(), ("latency_ms", "error_rate", "routes", "seed"))
        latency = whole_number(errors, {"latency_ms": 0, **values}, "latency_ms", 0, MAX_LATENCY_MS)
        rate = values.get("error_rate", 0.0)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            errors.add("error_rate", "must be a number from 0 to 1")
            rate = 0.0
        seed = None
        if values.get("seed") is not None:
            seed = whole_number(errors, values, "seed", 0, _MAX_SEED)
        routes = self._routes(errors, values.get("routes"))
        errors.raise_any("The faults stay as they were.")
        return Faults(latency, float(rate), routes, seed)

    def _routes(self, errors: Errors, value: object) -> tuple[str, ...] | None:
        if value is None:
            return None
        known = {
            rule.rule
            for rule in self._app.url_map.iter_rules()
            if not rule.endpoint.startswith(("vantage.", "faults."))
        }
        if not isinstance(value, list) or not all(isinstance(route, str) for route in value):
            errors.add("routes", "must be a list of route templates")
            return None
        for route in [route for route in value if route not in known][:10]:
            errors.add("routes", f"{route[:64]!r} is no route; known: {', '.join(sorted(known))}")
        return tuple(value)


def register(app: Flask) -> None:
    """Add `/faults` to `app` when SHOP_FAULTS=on; raises `SettingsError` for another word."""
    value = os.environ.get("SHOP_FAULTS", "").strip().lower() or "off"
    if value not in ("on", "off"):
        raise SettingsError("SHOP_FAULTS", f"{value!r} is neither on nor off", "Use on or off")
    if value == "off":
        return
    switch = FaultSwitch(app)
    blueprint = Blueprint("faults", __name__)
    blueprint.add_url_rule("/faults", "read", switch.read, methods=["GET"])
    blueprint.add_url_rule("/faults", "replace", switch.replace, methods=["PUT"])
    blueprint.add_url_rule("/faults", "clear", switch.clear, methods=["DELETE"])
    app.register_blueprint(blueprint)
    app.before_request(switch.suffer)
