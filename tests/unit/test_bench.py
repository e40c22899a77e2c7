"""The figures of the bench and the plain counterpart that it measures."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from vantage_tools import bench


def test_the_plain_script_starts_each_unit_and_waits_until_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = {f"docker.io/{name}": {"file": f"{name[:4]}.tar"} for name in ("loki:3", "grafana:1")}
    (tmp_path / "images").mkdir()
    (tmp_path / "images/index.json").write_text(json.dumps(index))
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path))
    units = [["loki:3", ["--rm", "--name=vantage-loki", "--env=A=b c", "loki:3"], "http://127.0.0.1:3100/ready"]]
    monkeypatch.setattr(bench, "on_vm", lambda command: json.dumps(units))
    lines = bench.plain_script().splitlines()
    assert "docker run --detach --name=vantage-loki '--env=A=b c' loki:3" in lines
    assert [line.rpartition("/")[2] for line in lines if line.startswith("docker load")] == ["loki.tar"]
    assert any("http://127.0.0.1:3100/ready" in line and line.startswith("until") for line in lines)


def test_memory_is_the_sum_of_all_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "REST_SECONDS", 0)
    monkeypatch.setattr(bench, "on_vm", lambda command: "1.5GiB / 2GiB\n512KiB / 1GiB\n64MiB / 1GiB\n")
    assert bench.memory() == [1536 + 0.5 + 64] * bench.SAMPLES


def test_both_checkouts_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deployed: list[str] = []
    monkeypatch.setattr(bench, "create_vm", lambda: None)
    monkeypatch.setattr(bench, "output", lambda *argv, cwd: deployed.append(cwd.name))
    monkeypatch.setattr(bench, "run_plain_script", lambda folder: 1.0)
    monkeypatch.setattr(bench, "memory", lambda: [2.0])
    monkeypatch.setattr(bench, "visibility", lambda checkout: {bench.VISIBLE.format("log"): [3.0]})
    results: bench.Results = {row: defaultdict(list) for row in bench.ROWS}
    bench.measure({"this": tmp_path / "this", "base": tmp_path / "base"}, 2, tmp_path, results)
    assert deployed[:4] == ["base", "this"] * 2
    assert {name: len(values) for name, values in results[bench.COLD].items()} == {"base": 2, "this": 2, "plain": 2}
    assert {name: len(values) for name, values in results[bench.WARM].items()} == {"this": 3, "base": 3}
    assert results[bench.MEMORY] == {"plain": [2.0], "this": [2.0], "base": [2.0]}
