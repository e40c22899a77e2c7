"""One line that makes a Flask app observable: metrics, traces, logs, health checks, clean stops."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_vantage.context import current_request_id, current_trace_id
    from flask_vantage.extension import Vantage
    from flask_vantage.problems import Problem
    from flask_vantage.settings import Settings, SettingsError

__all__ = ["Problem", "Settings", "SettingsError", "Vantage", "current_request_id", "current_trace_id"]

_MODULES = {
    "Problem": "problems",
    "Settings": "settings",
    "SettingsError": "settings",
    "Vantage": "extension",
    "current_request_id": "context",
    "current_trace_id": "context",
}


# `vantage-serve` serves any app: one that does not use this package must not need OpenTelemetry in the right version.
def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
