"""The private interfaces of other packages that flask_vantage uses, and why; those of waitress are in _waitress.py.

tests/test_private.py looks up every attribute that is used here, so an upgrade that removes one fails by name.
The upper bounds in pyproject.toml keep untested versions out.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from loguru import logger


def insert_before_request(app: Flask, function: Callable[[], None]) -> None:
    """Call `function` before the app's own before_request functions.

    Flask: `before_request_funcs`. `before_request()` appends, and a function of the app that ends the request would
    keep a later one from running.
    """
    app.before_request_funcs.setdefault(None, []).insert(0, function)


def loguru_has_only(handler_id: int | None) -> bool:
    """Tell whether loguru would do nothing with a record but pass it to the handler `handler_id`.

    loguru: `_core`. There is no public way to list handlers, patchers, extra fields and disabled loggers. False is the
    safe answer: the record then takes the usual way through loguru.
    """
    core = getattr(logger, "_core", None)
    return (
        core is not None
        and len(core.handlers) == 1
        and handler_id in core.handlers
        and core.patcher is None
        and not core.extra
        and not core.activation_list
    )
