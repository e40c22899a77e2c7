"""Hours that never were: the copies that scripts/fill-past makes of measured samples, lines and spans."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType

import pytest
from rendering import ROOT


@pytest.fixture(scope="module")
def past() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("fill_past", str(ROOT / "scripts/fill-past"))
    spec = importlib.util.spec_from_loader("fill_past", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["fill_past"] = module
    loader.exec_module(module)
    return module


def test_counters_go_on_from_copy_to_copy_up_to_the_first_sample(past: ModuleType) -> None:
    plan = past.Plan(begin=1000, end=1060, birth=940, copies=3)
    samples = [(at * 1000, float(at - 900)) for at in range(940, 1060, 15)]  # one a second
    copies = list(past.copied('requests_total{a="b"}', samples, plan))
    assert len(copies) == 12
    assert copies[-1][0] < 940_000
    rates = {(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(copies, copies[1:] + samples[:1], strict=True)}
    assert rates == {0.001}


def test_amounts_are_copied_as_they_are_and_moments_move(past: ModuleType) -> None:
    plan = past.Plan(begin=1000, end=1030, birth=1000, copies=1)
    samples = [(1_000_000, 5.0), (1_015_000, 7.0)]
    assert [value for _, value in past.copied("memory_bytes", samples, plan)] == [5.0, 7.0]
    assert [value for _, value in past.copied("node_time_seconds", [(1_000_000, 1000.0)], plan)] == [970.0]
    assert [value for _, value in past.copied("process_start_time_seconds", [(1_000_000, 900.0)], plan)] == [900.0]


def test_names_that_are_no_plain_words_are_quoted(past: ModuleType) -> None:
    assert past.quoted('up{a="b.c"}') == 'up{a="b.c"}'
    assert past.quoted('http.size{a="1",b.c="x,y.z=\\"q\\""}') == '{"http.size","a"="1","b.c"="x,y.z=\\"q\\""}'
    assert past.quoted('target_info{service.version="1"}') == '{"target_info","service.version"="1"}'


def test_an_id_becomes_another_one_the_same_wherever_it_was(past: ModuleType) -> None:
    one = "0123456789abcdef0123456789abcdef"
    first, second = past.another(f"{one} and {one}", 1).split(" and ")
    assert first == second != one
    assert past.another(one, 2) not in (one, first)
