"""The copies of samples that fill a past."""

from __future__ import annotations

import itertools
import re

from vantage_tools.fill_past import copy_series


def copied(metric: dict[str, str], *values: float) -> list[tuple[str, float, float]]:
    """The series, the value and the time of each copied sample, two copies of samples 15 s apart from 1000 on."""
    series = {"metric": metric, "values": [[1000 + 15 * i, str(value)] for i, value in enumerate(values)]}
    lines = [line.rsplit(" ", 2) for line in copy_series(series, range(60, 180, 60))]
    return [(name, float(value), float(at)) for name, value, at in lines]


def test_counter_grows_at_one_rate_over_all_copies() -> None:
    found = copied({"__name__": "requests_total"}, 100, 115, 130, 145)
    assert [at for _, _, at in found] == list(range(880, 1000, 15))
    assert {after[1] - before[1] for before, after in itertools.pairwise(found)} == {15}


def test_gauge_is_repeated() -> None:
    assert [value for _, value, _ in copied({"__name__": "memory_bytes"}, 5, 7)] == [5, 7, 5, 7]


def test_names_and_values_are_quoted() -> None:
    ((name, *_), _) = copied({"__name__": "http.size", "b.c": 'x,y="q"\\'}, 1)
    assert re.fullmatch(r'\{"http\.size","b\.c"="x,y=\\"q\\"\\\\"\}', name)
