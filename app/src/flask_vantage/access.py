"""Access lines of `vantage-serve` for an app without `Vantage(app)`, which writes none itself.

The format is the combined one of Apache, nginx and gunicorn with the seconds at the end, so that what reads such lines
(Promtail counts them) needs no other rule for these. The query is left out because it may hold secrets.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote

from flask_vantage.writer import LineWriter, write_to_stderr

# Not by strftime, whose names follow the app's locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MAX_PATH, _MAX_HEADER = 2048, 256


class AccessLog:
    """Writes one line per request, without waiting for the reader: to stderr, because stdout is the app's."""

    def __init__(self, put: Callable[[bytes], None] | None = None) -> None:
        self._put = put or LineWriter(write_to_stderr).put

    def write(
        self,
        method: str,
        path: str,
        status: str,
        seconds: float,
        client_address: str | None = None,
        length: int | None = None,
        referer: str = "",
        user_agent: str = "",
    ) -> None:
        """Write the line of one request; `path` is that of WSGI, whose bytes are latin-1 text."""
        now = time.gmtime()
        at = f"{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year}:{time.strftime('%H:%M:%S', now)} +0000"
        target = quote(path[:_MAX_PATH], safe="/:@!$&'()*+,;=~", encoding="latin-1", errors="replace") or "-"
        size = "-" if length is None else length
        line = (
            f'{client_address or "-"} - - [{at}] "{quote(method, safe="")[:32] or "-"} {target} HTTP/1.1" '
            f"{status[:3]} {size} {_quoted(referer)} {_quoted(user_agent)} {seconds:.6f}\n"
        )
        self._put(line.encode())


def _quoted(text: str) -> str:
    return json.dumps(text[:_MAX_HEADER] or "-")
