"""Requests that few clients send: each gets the answer that HTTP says, and the next one is answered too."""

from __future__ import annotations

import json
import re
import socket

from served import Serve, Served

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def send(served: Served, request: str, body: bytes = b"") -> tuple[int, str]:
    """Send one raw request; return the status and all that came."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode("latin-1") + body)
        received = b""
        while part := connection.recv(65536):
            received += part
    text = received.decode("latin-1")
    return int(re.findall(r"^HTTP/1\.[01] ([2-5]\d\d)", text, re.MULTILINE)[0]), text


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> str:
    return "\n".join([f"{method} {path} HTTP/{version}", "Host: x", "Connection: close", *headers, "", ""])


def test_odd_requests_have_their_usual_answers(serve: Serve) -> None:
    served = serve("odd_app:app", OTEL_TRACES_EXPORTER="none")
    expected = {
        get("/de/l%C3%A4den/eins"): 200,
        get("/%FF%00"): 200,
        get("/any/page", method="HEAD"): 200,
        get("/any/page", method="OPTIONS"): 200,
        get("/any/page", method="DELETE"): 405,
        get("/any/page", method="PROPFIND"): 405,
        get("/any/page", version="1.0"): 200,
        get("/any/page", f"Cookie: a={'x' * 70_000}"): 431,
        get("/any/page", "baggage: ;;=,=%%%"): 200,
        get("/any/page", f"X-Request-ID: {'x' * 200}"): 200,
        get("/any/page", "X-Request-ID: {x}"): 200,
        get("/any/page", f"traceparent: 00-{'0' * 32}-{'0' * 16}-00"): 200,
        get("/any/page", "traceparent: garbage"): 200,
        get("/any/page", f"traceparent: 00-{TRACE}-{SPAN}-01", f"traceparent: 00-{TRACE}-{SPAN}-01"): 200,
    }
    found = {request: send(served, request)[0] for request in expected}
    assert {request[:60]: status for request, status in found.items()} == {
        request[:60]: status for request, status in expected.items()
    }


def test_bodies_arrive_whole_however_they_are_sent(serve: Serve) -> None:
    served = serve("odd_app:app", OTEL_TRACES_EXPORTER="none")
    chunked = get("/echo", "Transfer-Encoding: chunked", method="POST")
    assert '{"length":5}' in send(served, chunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")[1]
    status, text = send(served, get("/echo", "Expect: 100-continue", "Content-Length: 3", method="POST"), b"abc")
    assert (status, '{"length":3}' in text) == (200, True)


def test_catch_all_route_leaves_probes_and_metrics(serve: Serve) -> None:
    served = serve("odd_app:app", OTEL_TRACES_EXPORTER="none")
    assert json.loads(served.request("GET", "/healthz")[2]) == {"status": "ok"}
    assert b"vantage_build_info" in served.request("GET", "/metrics")[2]
    assert served.request("GET", "/metrics/more")[2] == b"index.html for metrics/more"
