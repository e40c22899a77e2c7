"""The private interfaces of other packages that flask_vantage uses, and why.

Those of waitress are in _waitress.py and _connection.py.

tests/test_private.py looks up every attribute that is used here, so an upgrade that removes one fails by name.
The upper bounds in pyproject.toml keep untested versions out.
"""

from __future__ import annotations

from loguru import logger
from werkzeug.wrappers import Response
from werkzeug.wsgi import ClosingIterator


def is_complete(response: Response) -> bool:
    """Tell whether nothing of the app is left to run once `response` is returned.

    werkzeug: `_on_close`. There is no public way to ask for the functions of `call_on_close`.
    """
    if not response.is_sequence:
        # What Flask makes of an HTTPException, by calling it.
        return type(response.response) is ClosingIterator and "Content-Length" in response.headers
    return not response._on_close


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
