"""The headers in which a reverse proxy tells the client's address, scheme and host."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HEADERS = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_BY",
    "HTTP_FORWARDED",
)


class TrustedProxies:
    """Wraps `app`: applies the forwarding headers of the `networks`, and removes those of everyone else.

    They stay in the environment of a trusted request, so that an app with ProxyFix of its own finds them: the address
    is set as with its `x_for`, host and scheme as with `x_host=1` and `x_proto=1`.
    """

    def __init__(self, app: WSGIApplication, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._networks = tuple(networks)
        self._fixed = ProxyFix(app, x_for=0, x_proto=1, x_host=1)
        self._is_trusted = lru_cache(1024)(self._look_up)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._networks and self._is_trusted(environ["REMOTE_ADDR"]):
            environ["REMOTE_ADDR"] = self._client(environ["REMOTE_ADDR"], environ.get("HTTP_X_FORWARDED_FOR", ""))
            return self._fixed(environ, start_response)
        for name in _HEADERS:
            environ.pop(name, None)
        return self._app(environ, start_response)

    def _client(self, peer: str, forwarded_for: str) -> str:
        """Return the last address that no trusted proxy has; each proxy appends that of its peer."""
        client = peer
        for text in reversed(forwarded_for.split(",")):
            address = text.strip().strip("[]")
            if not _is_address(address):
                break
            client = address
            if not self._is_trusted(address):
                break
        return client

    def _look_up(self, address: str) -> bool:
        return _is_address(address) and any(ip_address(address) in network for network in self._networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
