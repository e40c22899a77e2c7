"""Answers in the shape that the engines give, made for tests of the report."""

from __future__ import annotations

import itertools
from typing import Any

END = 1_800_000_000.0
SHORT, LONG = 300, 21_600
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, float("inf"))
STEP = 300

Answers = dict[str, Any]


def system() -> Answers:
    """A calm shop: two services, six hours of requests, a trace a minute, nothing wrong."""
    data: Answers = {
        "meta": {"short": SHORT, "long": LONG, "end": END, "since": END - LONG, "grafana": "http://grafana:3000/", "host": "vm"},
        "engines": {name: {"ok": True, "error": ""} for name in ("prometheus", "loki", "jaeger")},
        "metrics": {"alerts": {"query": "ALERTS", "alerts": []}},
        "logs": {},
        "traces": {"short": [shop_trace() for _ in range(40)], "base": [shop_trace() for _ in range(120)]},
        "problems": [],
    }  # fmt: skip
    vector(
        data,
        "up",
        [
            ({"service_name": name, "job": "apps", "instance": f"{name}:8000"}, 1)
            for name in ("storefront", "warehouse")
        ],
    )
    vector(data, "first_seen", [({"service_name": name}, END - LONG) for name in ("storefront", "warehouse")])
    for service in ("storefront", "warehouse"):
        for window, number in (("short", 600), ("base", 42_000), ("long", 42_600)):
            requests(data, service, window, {"200": number * 0.97, "404": number * 0.03}, 0.004)
        points = [(END - LONG + STEP * (i + 1), 2.0) for i in range(LONG // STEP)]
        timeline(data, "rate~long", service, points)
        timeline(data, "failed~long", service, [(at, 0.0) for at, _ in points])
        timeline(data, "p95~long", service, [(at, 0.005) for at, _ in points])
    return data


def vector(data: Answers, name: str, values: list[tuple[dict[str, str], float]]) -> None:
    """Add series to an instant query's answer."""
    entry = data["metrics"].setdefault(name, {"query": f"query of {name}", "series": [], "step": STEP})
    entry["series"] += [{"metric": labels, "value": [END, str(value)]} for labels, value in values]


def timeline(data: Answers, name: str, service: str, points: list[tuple[float, float]]) -> None:
    """Set one service's points of a range query's answer."""
    entry = data["metrics"].setdefault(name, {"query": f"query of {name}", "series": [], "step": STEP})
    entry["series"] = [s for s in entry["series"] if s["metric"]["service_name"] != service]
    entry["series"].append({"metric": {"service_name": service}, "values": [[at, str(value)] for at, value in points]})


def requests(
    data: Answers,
    service: str,
    window: str,
    statuses: dict[str, float],
    seconds: float,
    route: str = "/products",
    slow: float = 0.02,
) -> None:
    """Set what a service answered on a route in a window; a share of `slow` took ten times as long."""
    labels = {"service_name": service, "http_request_method": "GET", "http_route": route}
    for name in (f"requests@{window}", f"buckets@{window}"):
        entry = data["metrics"].setdefault(name, {"query": f"query of {name}", "series": []})
        entry["series"] = [
            s for s in entry["series"] if (s["metric"]["service_name"], s["metric"]["http_route"]) != (service, route)
        ]
    vector(data, f"requests@{window}", [({**labels, "http_response_status_code": s}, n) for s, n in statuses.items()])
    total = sum(statuses.values())
    counts = [
        (
            str(bound) if bound != float("inf") else "+Inf",
            total * ((1 - slow) * (seconds <= bound) + slow * (10 * seconds <= bound)),
        )
        for bound in BOUNDS
    ]
    vector(data, f"buckets@{window}", [({**labels, "le": bound}, count) for bound, count in counts])


_ids = itertools.count(1)


def span(trace: str, service: str, name: str, parent: str, start: int, us: int, **more: Any) -> dict[str, Any]:
    """A span as the collector keeps it."""
    found = {
        "trace": trace, "id": f"{next(_ids):016x}", "parent": parent, "service": service, "name": name,
        "start": int((END - 100) * 1e6) + start, "us": us, "kind": "internal", "error": False, "tags": {},
    }  # fmt: skip
    return found | more


def shop_trace(us: int = 1000, error: str = "", database_us: int = 200, calls: int = 1) -> list[dict[str, Any]]:
    """A request of the storefront that asks the warehouse, which takes `us` besides its database."""
    trace = f"{next(_ids):032x}"
    status = "500" if error else "200"
    bad: dict[str, Any] = {"error": bool(error)}
    below = us + database_us * calls
    root = span(
        trace, "storefront", "GET /products", "", 0, below + 2000, kind="server",
        tags={"http.response.status_code": "502" if error else "200"}, **bad,
    )  # fmt: skip
    call = span(
        trace, "storefront", "GET", root["id"], 500, below + 1000, kind="client",
        tags={"server.address": "warehouse", "http.response.status_code": status}, **bad,
    )  # fmt: skip
    served = span(
        trace, "warehouse", "GET /products", call["id"], 800, below, kind="server",
        tags={"http.response.status_code": status, **({"error.type": error} if error else {})}, **bad,
    )  # fmt: skip
    databases = [
        span(
            trace, "warehouse", "SELECT products", served["id"], 800 + us // 2 + i * database_us, database_us,
            kind="client", tags={"db.system.name": "sqlite"},
        )
        for i in range(calls)
    ]  # fmt: skip
    return [root, call, served, *databases]
