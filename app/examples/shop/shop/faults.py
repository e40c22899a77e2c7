"""Faults on demand: latency and errors that an operator switches on to have something to see."""

from __future__ import annotations

import os
import random
import time

from flask import Blueprint, Flask, request
from loguru import logger

from flask_vantage import SettingsError
from shop.validation import json_object, read_numbers

MAX_LATENCY_MS = 10_000
_OFF = {"latency_ms": 0, "error_rate": 0.0}


class InjectedFault(RuntimeError):
    """The exception that a fault raises; never a real error."""


def register(app: Flask) -> None:
    """Add `/faults` to `app` when SHOP_FAULTS=on (default: off); raises `SettingsError`."""
    value = os.environ.get("SHOP_FAULTS", "").strip().lower() or "off"
    if value not in ("on", "off"):
        raise SettingsError("SHOP_FAULTS", f"not a switch: {value!r} (on, off)", "Use on or off")
    if value == "off":
        return
    faults = dict(_OFF)
    blueprint = Blueprint("faults", __name__)

    @blueprint.get("/faults")
    def read() -> dict[str, float]:
        return faults

    @blueprint.put("/faults")
    def replace() -> dict[str, float]:
        limits = {"latency_ms": (0, MAX_LATENCY_MS), "error_rate": (0.0, 1.0)}
        latency, rate = read_numbers("The faults are unchanged.", {**_OFF, **json_object()}, limits)
        faults.update(latency_ms=latency, error_rate=float(rate))
        logger.bind(fault_latency_ms=latency, fault_error_rate=rate).warning("The injected faults were changed.")
        return faults

    @blueprint.delete("/faults")
    def clear() -> tuple[str, int]:
        faults.update(_OFF)
        logger.warning("The injected faults were switched off.")
        return "", 204

    @app.before_request
    def inject() -> None:
        if request.url_rule is None or (request.endpoint or "").startswith("faults."):
            return
        time.sleep(faults["latency_ms"] / 1000)
        if random.random() < faults["error_rate"]:
            raise InjectedFault(f"injected by /faults with error_rate {faults['error_rate']:g}")

    app.register_blueprint(blueprint)
