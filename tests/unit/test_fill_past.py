"""The copies of samples, lines and spans that fill a past."""

from __future__ import annotations

from vantage_tools import fill_past
from vantage_tools.fill_past import Plan


def test_counters_continue_from_copy_to_copy_up_to_the_first_sample() -> None:
    plan = Plan(begin=1000, end=1060, first_sample=940, copies=3)
    samples = [(at * 1000, float(at - 900)) for at in range(940, 1060, 15)]  # one a second
    copies = list(fill_past.copy_samples('requests_total{a="b"}', samples, plan))
    assert len(copies) == 12
    assert copies[-1][0] < 940_000
    rates = {(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(copies, copies[1:] + samples[:1], strict=True)}
    assert rates == {0.001}


def test_gauges_are_copied_as_they_are_and_times_are_shifted() -> None:
    plan = Plan(begin=1000, end=1030, first_sample=1000, copies=1)
    samples = [(1_000_000, 5.0), (1_015_000, 7.0)]
    assert [value for _, value in fill_past.copy_samples("memory_bytes", samples, plan)] == [5.0, 7.0]
    assert [value for _, value in fill_past.copy_samples("node_time_seconds", [(1_000_000, 1000.0)], plan)] == [970.0]
    assert [value for _, value in fill_past.copy_samples("process_start_time_seconds", [(1_000_000, 900.0)], plan)] == [
        900.0
    ]


def test_names_with_dots_are_quoted() -> None:
    assert fill_past.quote_names('up{a="b.c"}') == 'up{a="b.c"}'
    assert (
        fill_past.quote_names('http.size{a="1",b.c="x,y.z=\\"q\\""}') == '{"http.size","a"="1","b.c"="x,y.z=\\"q\\""}'
    )
    assert fill_past.quote_names('target_info{service.version="1"}') == '{"target_info","service.version"="1"}'


def test_equal_ids_stay_equal_in_a_copy() -> None:
    one = "0123456789abcdef0123456789abcdef"
    first, second = fill_past.with_other_ids(f"{one} and {one}", 1).split(" and ")
    assert first == second != one
    assert fill_past.with_other_ids(one, 2) not in (one, first)


def test_a_dump_is_parsed_into_series_without_stale_markers() -> None:
    dump = ["# TYPE a counter\n", 'a{b="c d"} 1 10.5\n', 'a{b="c d"} NaN 25.5\n', "b 2e+06 1\n", "# EOF\n"]
    assert list(fill_past.parse_dump(dump)) == [('a{b="c d"}', [(10_500, 1.0)]), ("b", [(1000, 2e6)])]


def test_span_times_are_shifted_at_any_depth() -> None:
    spans = [
        {"scopeSpans": [{"spans": [{"startTimeUnixNano": "100", "events": [{"timeUnixNano": "110"}], "name": "a"}]}]}
    ]
    (moved,) = fill_past.shifted(spans, 10)
    (span,) = moved["scopeSpans"][0]["spans"]
    assert (span["startTimeUnixNano"], span["events"][0]["timeUnixNano"], span["name"]) == ("90", "100", "a")
