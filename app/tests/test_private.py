"""Every private attribute that flask_vantage uses, by name: an upgrade that removes one fails here."""

from __future__ import annotations

import ast
import re
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from loguru import logger
from waitress import create_server, wasyncore  # type: ignore[import-untyped]
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.parser import HTTPRequestParser  # type: ignore[import-untyped]
from waitress.receiver import FixedStreamReceiver  # type: ignore[import-untyped]
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask  # type: ignore[import-untyped]
from waitress.utilities import Error, RequestEntityTooLarge  # type: ignore[import-untyped]
from werkzeug.exceptions import NotFound

from conftest import APP
from flask_vantage import _private

PACKAGE = APP / "src" / "flask_vantage"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    running = create_server(lambda *_: [], host="127.0.0.1", port=0)
    yield running
    running.close()


@pytest.fixture(scope="module")
def channel(server: Any) -> Iterator[Any]:
    ours, theirs = socket.socketpair()
    opened = HTTPChannel(server, ours, "", server.adj, server._map)
    yield opened
    opened.handle_close()
    theirs.close()


@pytest.mark.parametrize(
    "name",
    [
        "_map", "active_channels", "add_task", "channel_class", "effective_host", "effective_port", "handle_accept",
        "pull_trigger", "task_dispatcher",
    ],
)  # fmt: skip
def test_waitress_server_has(server: Any, name: str) -> None:
    assert hasattr(server, name)


@pytest.mark.parametrize(
    "name",
    [
        "_map", "addr", "check_client_disconnected", "close_when_flushed", "connected", "error_task_class",
        "handle_close", "last_activity", "received", "request", "requests", "requests_lock",
        "send_continue", "server", "service", "socket", "task_class", "total_outbufs_len", "will_close",
        "write_soon",
    ],
)  # fmt: skip
def test_waitress_channel_has(channel: Any, name: str) -> None:
    assert hasattr(channel, name)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (WSGITask, "build_response_header"),
        (ErrorTask, "execute"),
        (ErrorTask, "write"),
        (ErrorTask, "status"),
        (ErrorTask, "content_length"),
        (WSGITask, "service"),
        (WSGITask, "complete"),
        (WSGITask, "wrote_header"),
        (WSGITask, "has_body"),
        (WSGITask, "write"),
        (WSGITask, "close_on_finish"),
        (Error("reason"), "body"),
        (RequestEntityTooLarge, "code"),
        (RequestEntityTooLarge, "reason"),
        (HTTPRequestParser, "error"),
        (HTTPRequestParser, "body_rcv"),
        (HTTPRequestParser, "close"),
        (FixedStreamReceiver, "getfile"),
        (FixedStreamReceiver, "getbuf"),
        (ThreadedTaskDispatcher, "add_task"),
        (ThreadedTaskDispatcher, "queue_logger"),
        (ThreadedTaskDispatcher, "set_thread_count"),
        (ThreadedTaskDispatcher, "shutdown"),
        (ThreadedTaskDispatcher(), "queue"),
        (Adjustments, "inbuf_overflow"),
        (Adjustments(), "listen"),
        (wasyncore, "poll2"),
        (wasyncore.dispatcher, "close"),
        (wasyncore.dispatcher, "handle_close"),
        (wasyncore.dispatcher, "recv"),
    ],
)
def test_waitress_has(owner: Any, name: str) -> None:
    assert hasattr(owner, name)


@pytest.mark.parametrize("name", ["handlers", "patcher", "extra", "activation_list"])
def test_loguru_core_has(name: str) -> None:
    assert hasattr(logger._core, name)  # type: ignore[attr-defined]


def test_response_is_complete_only_if_nothing_of_the_app_runs_later() -> None:
    assert _private.is_complete(Response("text"))
    assert not _private.is_complete(Response(iter([b"a"])))
    closed = Response("text")
    closed.call_on_close(lambda: None)
    assert not _private.is_complete(closed)


def test_page_of_an_http_exception_is_complete() -> None:
    app = Flask("ordinary")
    with app.test_request_context():
        response = app.make_response(NotFound())
    assert not response.is_sequence
    assert _private.is_complete(response)


def test_loguru_with_a_second_handler_is_not_bypassed() -> None:
    handler = logger.add(lambda _: None)
    try:
        assert not _private.loguru_has_only(handler)
    finally:
        logger.remove(handler)


def test_packages_with_private_uses_have_an_upper_bound() -> None:
    project = tomllib.loads((APP / "pyproject.toml").read_text())["project"]
    bounds = dict(re.fullmatch(r"([a-z0-9-]+)(.*)", line).groups() for line in project["dependencies"])  # type: ignore[union-attr]
    assert [name for name, bound in bounds.items() if "<" not in bound] == []


def test_only_the_private_modules_use_private_names_of_packages() -> None:
    found = []
    for path in PACKAGE.glob("*.py"):
        if path.name in ("_private.py", "_waitress.py", "_connection.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or not re.match(r"_[a-z]", node.attr):
                continue
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "sys")):
                found.append(f"{path.name}:{node.lineno} {node.attr}")
    assert found == []


def test_extension_does_not_import_the_shop() -> None:
    sources = "".join(path.read_text() for path in Path(PACKAGE).glob("*.py"))
    assert re.search(r"^\s*(from|import) shop", sources, re.MULTILINE) is None
