"""What the report reads off traces and counters, and the files it writes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from report_data import END, requests, shop_trace, span, system, vector
from vantage_tools.errors import UserError
from vantage_tools.report import formats, pictures, render, samples, service_map, tables
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.spans import Trace, by_operation, self_us
from vantage_tools.report.stats import Histogram, wilson


def test_quantiles_are_those_of_prometheus() -> None:
    histogram = Histogram({"0.1": 50, "0.5": 90, "1": 100, "+Inf": 100})
    assert histogram.quantile(0.5) == pytest.approx(0.1)
    assert histogram.quantile(0.7) == pytest.approx(0.1 + 0.4 * 20 / 40)
    assert histogram.above(0.5) == 10
    assert histogram.bound_of(0.95) == 1
    assert Histogram({"0.1": 0, "+Inf": 10}).quantile(0.5) == 0.1
    assert Histogram({}).quantile(0.5) is None


def test_wilsons_interval_holds_the_share_and_narrows() -> None:
    low, high = wilson(20, 100)
    assert 0.11 < low < 0.2 < high < 0.33
    assert wilson(200, 1000)[0] > low
    assert wilson(0, 0) == (0.0, 1.0)
    assert not math.isnan(wilson(3.2, 3.1)[1])


def test_self_time_leaves_out_children_that_overlap() -> None:
    root = span("t", "a", "root", "", 0, 100)
    trace = Trace([
        root, span("t", "a", "one", root["id"], 10, 40), span("t", "a", "two", root["id"], 30, 40),
        span("t", "a", "late", root["id"], 90, 50),
    ])  # fmt: skip
    # 10–70 and 90–100 are covered; what a child does after its parent has ended is not taken from it.
    assert trace.root.self_us == 30
    assert trace.us == 140


def test_the_failing_span_is_the_deepest_failure() -> None:
    trace = Trace(shop_trace(error="InjectedFault"))
    assert trace.failing_span is not None
    assert (trace.failing_span.service, trace.failing_span.name) == ("warehouse", "GET /products")
    assert Trace(shop_trace()).failing_span is None


def test_a_trace_without_its_root_is_incomplete() -> None:
    assert not Trace(shop_trace()[1:]).is_complete
    assert Trace(shop_trace()).is_complete


def test_arrows_lead_to_services_and_databases() -> None:
    data = system()
    data["traces"]["short"] = [shop_trace(database_us=200), shop_trace(database_us=400)]
    found = {(call.source, call.target): call for call in service_map.calls(Dataset(data))}
    assert set(found) == {("storefront", "warehouse"), ("warehouse", "sqlite of warehouse")}
    assert found["warehouse", "sqlite of warehouse"].mean == pytest.approx(0.0003)


def test_calls_are_counted_by_span_metrics_and_completed_from_traces() -> None:
    data = system()
    labels = {"service_name": "storefront", "server_address": "warehouse"}
    vector(
        data,
        "calls@short",
        [({**labels, "status_code": code}, n) for code, n in (("STATUS_CODE_UNSET", 270), ("STATUS_CODE_ERROR", 30))],
    )
    vector(data, "call_ms@short", [(labels, 600)])
    calls = {(call.source, call.target): call for call in service_map.calls(Dataset(data))}
    call = calls["storefront", "warehouse"]
    assert (call.rate, call.failed, call.mean) == (1.0, 0.1, 0.002)
    assert calls["warehouse", "sqlite of warehouse"].rate is None


def test_a_cycle_of_calls_can_be_drawn(tmp_path: Path) -> None:
    cycle = [service_map.Call(a, b, 1.0, 0.0, 0.1) for a, b in (("a", "b"), ("b", "c"), ("c", "a"), ("a", "a"))]
    service_map.draw(Dataset(system()), cycle).savefig(tmp_path / "map.png")


def test_the_slowest_a_typical_and_a_failing_trace_are_chosen() -> None:
    data = system()
    data["traces"]["slow@short"] = [shop_trace(us=900_000)]
    data["traces"]["failed@short"] = [shop_trace(error="InjectedFault") for _ in range(3)]
    chosen = pictures.choose_traces(Dataset(data))
    assert list(chosen) == ["slowest", "typical", "failing"]
    assert chosen["slowest"][0].us > 900_000
    assert chosen["typical"][0].us == 3200
    assert "InjectedFault" in chosen["failing"][1]
    assert "3 of 3 failing traces" in chosen["failing"][1]
    assert "failing" not in pictures.choose_traces(Dataset(system()))


@pytest.mark.parametrize("failures", [1, 2])
def test_the_chosen_traces_differ_when_the_slowest_failed(failures: int) -> None:
    data = system()
    slow = [shop_trace(us=900_000 - 1000 * number, error="InjectedFault") for number in range(failures)]
    data["traces"]["slow@short"] = data["traces"]["failed@short"] = slow
    chosen = pictures.choose_traces(Dataset(data))
    ids = [trace.id for trace, _ in chosen.values()]
    assert len(set(ids)) == len(ids) == 3
    assert chosen["failing"][0].failed
    # The slowest one is shown in either case.
    assert slow[0][0]["trace"] in ids


def test_one_trace_gets_one_picture() -> None:
    data = system()
    data["traces"] = {"short": [shop_trace()], "base": []}
    assert list(pictures.choose_traces(Dataset(data))) == ["slowest"]


def test_self_time_is_by_operation() -> None:
    found = {key: self_us(spans) for key, spans in by_operation([Trace(shop_trace(us=5000))]).items()}
    assert found["warehouse", "GET /products"] == 5000
    assert found["storefront", "GET → warehouse"] == 1000
    data = system()
    data["traces"]["short"] = [shop_trace(us=5000)]
    operations = [row[1] for row in tables.self_time(Dataset(data)).rows]
    assert operations[:1] == ["GET /products"]
    assert "SELECT products (database)" in operations


def test_both_time_ranges_are_compared() -> None:
    data = system()
    requests(data, "warehouse", "short", {"200": 60, "500": 60}, 0.004)
    storefront, warehouse = tables.differences(Dataset(data))
    assert "requests/s 2.00 (no change)" in storefront
    assert "requests/s 0.40 (down from 1.97)" in warehouse
    assert "errors 50 % (up from 0 %)" in warehouse


def test_numbers_are_formatted() -> None:
    lengths = [formats.seconds(v) for v in (0.0042, 0.042, 0.9996, 1.25, 31.0, None)]
    assert lengths == ["4.2 ms", "42 ms", "1.00 s", "1.25 s", "31 s", "–"]
    ratios = [formats.percent(v) for v in (0, 0.0004, 0.021, 0.0999, 0.213)]
    assert ratios == ["0 %", "< 0.1 %", "2.1 %", "10 %", "21 %"]
    durations = [formats.format_duration(v) for v in (90, 300, 5400, 21_600, 23_400)]
    assert durations == ["90 s", "5 min", "90 min", "6 h", "6 h 30 min"]
    assert formats.listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = system()
    hostile = {
        "message": "<script>alert(1)</script> | `x`\n```\n![x](http://example.org/x.png)",
        "http_route": "![x](http://example.org/x.png)",
        "level": "error",
        "http_response_status_code": 500,
        "trace_id": "ef" * 16,
    }
    line = [int(END * 1e9), json.dumps(hostile), {"service_name": "storefront"}]
    data["logs"]["raw"] = {"query": '{service_name=~"storefront"}', "lines": [line]}
    data["logs"]["failed"] = {"query": "failed", "lines": [line]}
    data["traces"]["failed@short"] = [shop_trace(error="InjectedFault")]
    data["meta"]["host"] = "web_1"
    folder = tmp_path_factory.mktemp("report")
    (folder / "trace-typical.png").write_bytes(b"old")
    (folder / "mine.png").write_bytes(b"mine")
    render.write(data, folder)
    return folder


def test_page_needs_no_other_file_and_runs_no_script(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert not re.findall(r'(?:src|srcset)="(?!data:)|<link|@import|url\(|<script', page)
    assert page.count("data:image/png;base64,") == len(list(written.glob("*.png"))) - 1
    assert "&lt;script&gt;alert(1)" in page
    assert re.findall(r"<title>.*(web.*)</title>", page) == ["web_1"]
    assert "None of them found" in page


def test_pictures_are_small_and_other_files_stay(written: Path) -> None:
    names = {path.stem for path in written.glob("*.png")}
    traces = {"trace-slowest", "trace-typical", "trace-failing"}
    assert names == {"requests", "errors", "latency", "time", "services", "mine", *traces}
    assert all(path.stat().st_size < 150_000 for path in written.glob("*.png"))
    assert (written / "trace-typical.png").read_bytes().startswith(b"\x89PNG")
    assert (written / "mine.png").read_bytes() == b"mine"


def test_markdown_names_its_pictures_and_its_tables_are_whole(written: Path) -> None:
    text = (written / "report.md").read_text()
    for name in re.findall(r"\]\(([\w-]+\.png)\)", text):
        assert (written / name).exists()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 15
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_a_report_without_any_data_names_what_is_missing(tmp_path: Path) -> None:
    data = system()
    data["metrics"], data["logs"], data["traces"] = {}, {}, {}
    for name in ("prometheus", "loki"):
        data["engines"][name] = {"ok": False, "error": "refused"}
    findings = render.write(data, tmp_path)
    assert {finding.service for finding in findings} == {"prometheus", "loki"}
    page = (tmp_path / "report.html").read_text()
    for part in (
        "No service has request metrics",
        "There are no traces",
        "There are no log lines",
        "no objectives",
    ):
        assert part in page
    assert not list(tmp_path.glob("*.png"))


def test_samples_are_lines_their_fields_and_traces(tmp_path: Path) -> None:
    data = system()
    fields = {"timestamp": "t", "level": "error", "http_response_status_code": 500, "client_address": "10.0.0.1"}
    lines = [[int((END - i) * 1e9), json.dumps({**fields, "number": i}), {"service_name": "shop"}] for i in range(50)]
    data["logs"] = {"raw": {"query": "{a}", "lines": lines}, "failed": {"query": "{a} | json", "lines": lines[:2]}}
    names = samples.write(data, tmp_path)
    raw = (tmp_path / samples.RAW).read_text().splitlines()
    assert [json.loads(line)["number"] for line in (raw[0], raw[-1])] == [39, 0]
    filtered = [json.loads(line) for line in (tmp_path / samples.FILTERED).read_text().splitlines()]
    assert filtered == [{"timestamp": "t", "level": "error", "http_response_status_code": 500}] * 2
    readme = (tmp_path / "README.md").read_text()
    assert all((tmp_path / name).exists() for name in names)
    assert "`{a} \\| json`" in readme
    with pytest.raises(UserError, match="make traffic"):
        samples.write(system(), tmp_path)
