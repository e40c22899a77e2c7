"""The load generator: repeatable by seed, limited in time, and no fault stays behind."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shop import traffic


class Shop(BaseHTTPRequestHandler):
    """Answers as the shop would and records the requests."""

    protocol_version = "HTTP/1.1"
    received: list[tuple[str, str, bytes]] = []  # noqa: RUF012 - emptied by the fixture
    status = 0

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received.append((self.command, self.path, body))
        text = b"<p>Hello" if self.status else json.dumps({"id": "0" * 32, "items": []}).encode()
        self.send_response(self.status or (201 if self.path == "/orders" else 200))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    Shop.received, Shop.status = [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_same_seed_gives_the_same_visits() -> None:
    visits = [list(traffic.visit(random.Random(7))) for _ in range(2)]
    assert visits[0] == visits[1]
    assert visits[0] != list(traffic.visit(random.Random(8)))


def test_visits_reach_every_public_route_and_send_invalid_input() -> None:
    rng = random.Random(1)
    steps = [step for _ in range(500) for step in traffic.visit(rng)]
    paths = {re.sub(r"\d+|\?.*", "", step.path) for step in steps}
    assert paths == {"/", "/products", "/products/", "/buy", "/orders", "/orders/{order}", "/offers/"}
    assert any(step.path == "/products/9999" for step in steps)
    assert any(step.body and step.body["quantity"] == 0 for step in steps)
    assert all(0.05 <= step.think <= 10 for step in steps)


def test_round_ends_in_time_with_a_summary(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    assert traffic.main(["--url", shop, "--seconds", "2", "--users", "3", "--pace", "20"]) == 0
    assert time.monotonic() - begin < 8
    output = capsys.readouterr().out
    assert "0 failed (0.0%)" in output
    assert Shop.received


def test_order_is_read_by_its_id(shop: str) -> None:
    arguments = ["--url", shop, "--seconds", "4", "--users", "8", "--pace", "20"]
    assert traffic.main(arguments) == 0
    assert ("GET", "/orders/" + "0" * 32, b"") in Shop.received


def test_faults_are_switched_on_and_off_again(shop: str) -> None:
    arguments = ["--url", shop, "--warehouse", shop, "--seconds", "2", "--errors", "0.2"]
    assert traffic.main([*arguments, "--latency", "800"]) == 0
    switched = [(method, body) for method, path, body in Shop.received if path == "/faults"]
    assert switched[0][0] == "PUT"
    assert json.loads(switched[0][1]) == {"error_rate": 0.2, "latency_ms": 800}
    assert switched[-1][0] == "DELETE"


def test_stopped_round_leaves_no_fault_behind(shop: str) -> None:
    stop = threading.Event()
    options = ["--url", shop, "--warehouse", shop, "--users", "1", "--errors", "0.5"]
    threading.Timer(1, stop.set).start()
    traffic.LoadGenerator(traffic.parser().parse_args(options), stop).run(seed=1)
    assert Shop.received[-1][:2] == ("DELETE", "/faults")


def test_no_answer_at_all_is_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--url", "http://127.0.0.1:9", "--seconds", "1", "--pace", "20"]
    assert traffic.main(arguments) == 1
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_faults_without_a_warehouse_name_the_option(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert traffic.main(["--url", shop, "--seconds", "1", "--errors", "0.5"]) == 0
    assert "--warehouse" in capsys.readouterr().out
    assert not [path for _, path, _ in Shop.received if path == "/faults"]


@pytest.mark.parametrize("arguments", [["--users", "0"], ["--pace", "nan"], ["--seconds", "x"], ["--seed", "1.5"]])
def test_invalid_argument_is_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        traffic.main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("status", [200, 301, 404])
def test_another_app_gets_no_visitors(shop: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    Shop.status = status  # With 200, a page that is not a list of products.
    assert traffic.main(["--url", shop, "--seconds", "60"]) == 1
    output = capsys.readouterr()
    for word in (shop, str(status), "--url"):
        assert word in output.err
    assert output.out == ""
    assert [path for _, path, _ in Shop.received] == ["/products?limit=1"]


def test_failing_shop_gets_visitors(shop: str) -> None:
    Shop.status = 503
    assert traffic.main(["--url", shop, "--seconds", "1", "--pace", "20"]) == 0
    assert ("GET", "/", b"") in Shop.received


@pytest.mark.parametrize("option", ["--url", "--warehouse"])
def test_invalid_url_is_exit_status_2(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        traffic.main([option, "shop"])
    assert caught.value.code == 2
    assert "'shop'" in capsys.readouterr().err


def test_log_lines_are_flat_json(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert traffic.main(["--url", shop, "--seconds", "1", "--json", "--pace", "20"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"timestamp", "level", "message", "service"} <= set(lines[0])
    assert lines[-1]["requests"] > 0
