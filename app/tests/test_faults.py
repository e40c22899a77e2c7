from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from conftest import ReadLines, assert_problem
from flask_vantage import SettingsError
from shop import storefront


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setenv("SHOP_FAULTS", "on")
    return storefront.create_app("http://127.0.0.1:1").test_client()


def put(client: FlaskClient, **faults: Any) -> Any:
    response = client.put("/faults", json=faults)
    assert response.status_code == 200, response.get_data()
    return response.get_json()


@pytest.mark.parametrize("value", ["off", "", " OFF "])
def test_faults_route_does_not_exist_by_default(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SHOP_FAULTS", value)
    client = storefront.create_app("http://127.0.0.1:1").test_client()
    assert_problem(client.get("/faults"), 404)
    assert_problem(client.put("/faults", json={"error_rate": 1}), 404)


def test_invalid_switch_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_FAULTS", "maybe")
    with pytest.raises(SettingsError, match="SHOP_FAULTS"):
        storefront.create_app("http://127.0.0.1:1")


def test_faults_are_off_at_the_start(client: FlaskClient) -> None:
    assert client.get("/faults").get_json() == {"latency_ms": 0, "error_rate": 0.0}
    assert client.get("/ping").status_code == 200


def test_errors_are_injected_and_cleared(client: FlaskClient, lines: ReadLines) -> None:
    put(client, error_rate=1)
    response = client.get("/ping")
    assert_problem(response, 500)
    (line,) = [line for line in lines() if line.get("url_path") == "/ping"]
    assert line["exception_type"] == "shop.faults.InjectedFault"
    assert client.delete("/faults").status_code == 204
    assert client.get("/ping").status_code == 200


def test_latency_is_added(client: FlaskClient) -> None:
    put(client, latency_ms=80)
    started = time.monotonic()
    assert client.get("/ping").status_code == 200
    assert time.monotonic() - started >= 0.08


def test_error_rate_is_the_share_of_failed_requests(client: FlaskClient) -> None:
    put(client, error_rate=0.5)
    assert {client.get("/ping").status_code for _ in range(50)} == {200, 500}


def test_probes_scrapes_and_the_faults_route_never_fail(client: FlaskClient) -> None:
    put(client, error_rate=1)
    for path in ("/healthz", "/readyz", "/metrics", "/faults"):
        assert client.get(path).status_code == 200
    assert_problem(client.get("/nowhere"), 404)


def test_switching_is_logged(client: FlaskClient, lines: ReadLines) -> None:
    put(client, latency_ms=5, error_rate=0.25)
    client.delete("/faults")
    warnings = [line for line in lines() if line["level"] == "warning"]
    assert [line["logger"] for line in warnings] == ["shop.faults", "shop.faults"]
    assert warnings[0]["fault_latency_ms"] == 5
    assert warnings[0]["fault_error_rate"] == 0.25


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": 10_001}, "latency_ms"),
        ({"latency_ms": "5"}, "latency_ms"),
        ({"latency_ms": None}, "latency_ms"),
        ({"error_rate": 1.01}, "error_rate"),
        ({"error_rate": "1"}, "error_rate"),
        ({"error_rate": True}, "error_rate"),
        ({"error_rate": float("nan")}, "error_rate"),
        ({"errors": 1}, "errors"),
    ],
)
def test_invalid_faults_are_422_and_change_nothing(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    put(client, latency_ms=3)
    assert_problem(client.put("/faults", json=body), 422, field)
    assert client.get("/faults").get_json()["latency_ms"] == 3
