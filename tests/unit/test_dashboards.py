"""The dashboards' JSON: fit for any Grafana, explained, bounded, and equal to its sources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from ansible.template import trust_as_template
from rendering import Host

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "roles/grafana/files/dashboards"
FILES = sorted(FOLDER.glob("*.json"))
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
SOURCES = {"prometheus", "loki", "jaeger"}
# Lines of text have no unit, and a node graph takes those of its fields.
WITHOUT_UNIT = {"logs", "row"}
MOST_QUERIES = 40

each = pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS.keys())


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def strings(value: Any) -> Iterator[str]:
    """Every text anywhere inside."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def sources(value: Any) -> Iterator[dict[str, str]]:
    """Every reference to a data source."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "datasource" and inner is not None:
                yield inner
            yield from sources(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from sources(inner)


def test_uids_and_titles_are_unique() -> None:
    for key in ("uid", "title"):
        values = [board[key] for board in DASHBOARDS.values()]
        assert len(set(values)) == len(values), values


@each
def test_panels_are_explained(board: dict[str, Any]) -> None:
    assert board["description"]
    shown = [panel for panel in panels(board) if panel["type"] != "row"]
    titles = [panel["title"] for panel in shown]
    assert len(set(titles)) == len(titles), "two panels share a title"
    assert not [panel["title"] for panel in shown if len(panel.get("description", "")) < 20]


@each
def test_figures_have_units(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] not in WITHOUT_UNIT:
            assert panel["fieldConfig"]["defaults"].get("unit"), panel["title"]


@each
def test_data_sources_are_chosen_by_variables(board: dict[str, Any]) -> None:
    variables = {v["name"]: v for v in board["templating"]["list"] if v["type"] == "datasource"}
    assert {name: v["query"] for name, v in variables.items()} == {name: name for name in SOURCES}
    # Mixed is built in: each query of the panel names its own source.
    allowed = {(name, f"${{{name}}}") for name in SOURCES} | {("datasource", "-- Mixed --")}
    assert {(s["type"], s["uid"]) for s in sources(board)} <= allowed


@each
def test_nothing_of_one_installation_is_inside(board: dict[str, Any]) -> None:
    assert "__inputs" not in board
    assert board.get("id") is None
    own = {f"vantage-{name}" for name in SOURCES}
    assert not [text for text in strings(board) if text in own or "${DS_" in text]


@each
def test_load_is_bounded(board: dict[str, Any]) -> None:
    """Panels, marks and variables; what a browser really asks is counted in tests/browser."""
    queries = [target for panel in panels(board) for target in panel.get("targets", [])]
    variables = [variable for variable in board["templating"]["list"] if variable["type"] == "query"]
    assert queries
    assert len([*queries, *board["annotations"]["list"], *variables]) <= MOST_QUERIES


@each
def test_panels_do_not_overlap(board: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert (x, y) not in taken, f"{panel['title']} overlaps {taken.get((x, y))}"
                taken[x, y] = panel["title"]


@each
def test_links_lead_to_dashboards_that_exist(board: dict[str, Any]) -> None:
    known = {other["uid"] for other in DASHBOARDS.values()}
    found = {uid for text in strings(board) for uid in re.findall(r"^/d/([a-z-]+)", text)}
    assert found <= known
    assert board["links"][0]["tags"] == ["vantage"]
    assert "vantage" in board["tags"]


@each
def test_queries_use_variables_that_exist(board: dict[str, Any]) -> None:
    defined = {variable["name"] for variable in board["templating"]["list"]}
    used = {
        name
        for panel in panels(board)
        for target in panel.get("targets", [])
        for text in strings(target)
        for name in re.findall(r"\$\{?([a-z_]+)", text)
        if not name.startswith("__")
    }
    assert used <= defined


@each
def test_starts_and_alerts_are_marked(board: dict[str, Any]) -> None:
    assert [mark["name"] for mark in board["annotations"]["list"]] == ["Starts and deployments", "Alerts"]


def test_six_hour_windows_come_from_recording_rules() -> None:
    for board in DASHBOARDS.values():
        for panel in panels(board):
            for target in panel.get("targets", []):
                assert not re.search(r"\[(6h|[1-9]d)\]", target.get("expr", "")), panel["title"]


def test_no_quantile_where_bounds_and_values_have_different_units() -> None:
    """Jaeger's bounds are in milliseconds and its values in seconds: every quantile of them is 4.75 s."""
    wrong = "jaeger_storage_latency_seconds_bucket"
    assert [name for name, board in DASHBOARDS.items() if any(wrong in text for text in strings(board))] == []


def test_data_sources_lead_to_each_other_with_escaped_variables() -> None:
    text = (ROOT / "roles/grafana/vars/main.yml").read_text()
    sources = {source["type"]: source for source in yaml.safe_load(text)["__grafana_datasources"]}
    # Grafana expands a single $ in provisioned files, and the query arrives without its variable.
    assert not [value for value in strings(sources) if re.search(r"(?<!\$)\$(?!\$)", value)]
    jaeger = sources["jaeger"]["jsonData"]
    # Jaeger gives the service's name apart from the tags: a tag service.name would leave the selector empty.
    assert "$$__tags" not in jaeger["tracesToLogsV2"]["query"]
    assert "service.name" not in [tag["key"] for tag in jaeger["tracesToMetrics"]["tags"]]
    assert sources["loki"]["jsonData"]["derivedFields"][0]["datasourceUid"] == sources["jaeger"]["uid"]
    assert jaeger["tracesToLogsV2"]["datasourceUid"] == sources["loki"]["uid"]
    assert jaeger["tracesToMetrics"]["datasourceUid"] == sources["prometheus"]["uid"]


def test_exemplar_links_to_jaeger_by_url() -> None:
    """By its source's uid, Grafana would ask Jaeger in Tempo's language and find nothing."""
    (prometheus,) = [
        s for s in Host("grafana").value(trust_as_template("{{ __grafana_datasources }}")) if s["type"] == "prometheus"
    ]
    (way,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert way["name"] == "trace_id"
    assert "datasourceUid" not in way
    address = urlsplit(way["url"].replace("$$", "$"))
    assert address.path == "/explore"
    (pane,) = json.loads(parse_qs(address.query)["panes"][0]).values()
    assert pane["datasource"] == "vantage-jaeger"
    assert [query["query"] for query in pane["queries"]] == ["${__value.raw}"]
