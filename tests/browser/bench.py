"""How long the queries of each panel take at six hours, and how many each dashboard sends; medians of several rounds.

    python tests/browser/bench.py [--rounds 5] [--start now-6h]

Each dashboard is opened in a browser, and what it asks is asked again, one panel after the other, of the same Grafana. A
measurement with an aim, not a test: it never fails on a slow day. The settings are those of the tests beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

from conftest import a_grafana
from grafana import Grafana

AIM_SECONDS, AIM_QUERIES = 0.5, 40


def asked(grafana: Grafana, uid: str, start: str) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """What a dashboard asks when it is read from top to bottom, by the title of the panel; and how many look-ups of variables."""
    titles = {p["id"]: p["title"] for p in grafana.get(f"/api/dashboards/uid/{uid}")["dashboard"]["panels"]}
    with grafana.board(uid, start) as view:
        return [(titles.get(panel, "(marks)"), body) for panel, body in view.queries], len(view.lookups)


def later(body: dict[str, Any], seconds: int) -> dict[str, Any]:
    """The same question of a range that ends later, so that no answer comes from a cache."""
    return body | {end: str(int(body[end]) + seconds * 1000) for end in ("from", "to")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--start", default="now-6h", help="where the time range begins")
    chosen = parser.parse_args()
    with a_grafana() as grafana:
        slowest: list[tuple[float, float, float, str]] = []
        for board in grafana.get("/api/search?type=dash-db&tag=vantage"):
            questions, lookups = asked(grafana, board["uid"], chosen.start)
            marks = sum(len(body["queries"]) for title, body in questions if title == "(marks)")
            queries = sum(len(body["queries"]) for _, body in questions) + lookups
            print(
                f"{board['title']}: {queries} queries, {marks} of them for marks and {lookups} for variables; "
                f"aim: at most {AIM_QUERIES}",
                flush=True,
            )
            for title, body in questions:
                times = []
                for number in range(chosen.rounds):
                    status, answer, seconds = grafana.post("/api/ds/query", later(body, number))
                    if status != 200:
                        sys.exit(f"{board['title']}, {title}: {status} {answer}")
                    times.append(seconds)
                slowest.append((statistics.median(times), min(times), max(times), f"{board['title']}: {title}"))
    slowest.sort(reverse=True)
    print(
        f"\nThe slowest panels from {chosen.start} on, seconds of {chosen.rounds} rounds; aim: a median of {AIM_SECONDS}"
    )
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, {time.strftime('%T')}")
    print("median    min    max  panel")
    for median, low, high, name in slowest[:15]:
        print(f"{median:6.3f} {low:6.3f} {high:6.3f}  {name}")
    late = sum(median > AIM_SECONDS for median, *_ in slowest)
    print(f"{len(slowest)} panels measured, {late} above the aim")
    return 0


if __name__ == "__main__":
    sys.exit(main())
