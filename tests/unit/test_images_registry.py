"""The registry's HTTP API, against a small one on this machine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vantage_tools.images import registry
from vantage_tools.images.manifest import Reference

DIGEST = "sha256:" + "a" * 64


class Registry(http.server.BaseHTTPRequestHandler):
    """One image, app:1, to be had with a token; a token for everybody."""

    token: str | None = "secret"
    status = 401

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/token?"):
            assert "scope=repository%3Ateam%2Fapp%3Apull" in self.path and "service=here" in self.path
            self._reply(200, json.dumps({"token": self.token} if self.token else {}).encode())
        elif self.headers.get("Authorization") != "Bearer secret":
            port = self.server.server_address[1]
            challenge = f'Bearer realm="http://127.0.0.1:{port}/token",service="here"'
            self._reply(self.status, b"", **{"WWW-Authenticate": challenge})
        elif self.path == "/v2/team/app/manifests/1":
            assert "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
            self._reply(200, b"", **{"Docker-Content-Digest": DIGEST})
        else:
            self._reply(404, b"")

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running(handler: type[Registry]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def host() -> Iterator[str]:
    with running(Registry) as address:
        yield address


def test_a_registry_that_wants_a_token_answers(host: str) -> None:
    assert registry.is_reachable(host)


def test_a_closed_port_and_an_unknown_name_do_not_answer() -> None:
    assert not registry.is_reachable("127.0.0.1:1")
    assert not registry.is_reachable("registry.invalid")


def test_a_proxy_that_forbids_is_no_registry() -> None:
    forbidding = type("Forbidding", (Registry,), {"status": 403})
    with running(forbidding) as address:
        assert not registry.is_reachable(address)


def test_a_tag_resolves_to_its_digest(host: str) -> None:
    assert registry.digest_of(Reference(host, "team/app", "1")) == DIGEST


def test_an_absent_tag_is_told_from_a_registry_that_does_not_answer(host: str) -> None:
    with pytest.raises(registry.TagNotFoundError, match="team/app:2"):
        registry.digest_of(Reference(host, "team/app", "2"))
    with pytest.raises(registry.RegistryError):
        registry.digest_of(Reference("127.0.0.1:1", "team/app", "2"))


@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_refusal_is_not_taken_for_an_absent_tag(status: int) -> None:
    refusing = type("Refusing", (Registry,), {"status": status})
    with running(refusing) as address, pytest.raises(registry.RegistryError, match=str(status)):
        registry.digest_of(Reference(address, "team/app", "1"))


def test_a_registry_without_a_token_to_give_is_reported() -> None:
    stingy = type("Stingy", (Registry,), {"token": None})
    with running(stingy) as address, pytest.raises(registry.RegistryError, match="no token"):
        registry.digest_of(Reference(address, "team/app", "1"))


def test_docker_hub_is_asked_where_it_is_served() -> None:
    assert registry.base_url("docker.io") == "https://registry-1.docker.io"
    assert registry.base_url("quay.io") == "https://quay.io"
    assert registry.base_url("localhost:5000") == "http://localhost:5000"
