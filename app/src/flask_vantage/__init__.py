"""One line that makes a Flask app observable: metrics, traces, logs, health checks, clean stops."""

from flask_vantage.context import current_request_id, current_trace_id
from flask_vantage.extension import Vantage
from flask_vantage.problems import Problem
from flask_vantage.settings import Settings, SettingsError

__all__ = ["Problem", "Settings", "SettingsError", "Vantage", "current_request_id", "current_trace_id"]
