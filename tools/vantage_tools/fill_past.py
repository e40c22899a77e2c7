"""`vantage fill-past`: fills Prometheus with hours before a system container's creation, to try dashboards.

What the machine measured is copied again and again into the hours before. Log lines and traces are not copied. For test
machines only: what is filled in cannot be removed.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from vantage_tools.errors import UserError
from vantage_tools.process import output
from vantage_tools.vm.container import SystemContainer
from vantage_tools.waiting import OPENER

STEP = 15  # seconds between scrapes; copies are shifted by whole steps
MAX_COPIED_SECONDS = 1800
COUNTER = re.compile(r"^(?!.*:)(.*(_total|_count|_sum|_bucket)$|node_(vmstat|netstat)_)")
FOLDER = "/var/tmp/vantage-past"
PROMETHEUS_DATA = "/var/lib/vantage/prometheus"

Series = dict[str, Any]


def copy_series(series: Series, shifts: range) -> Iterator[str]:
    """Yield the lines of all copies in OpenMetrics' format, the oldest first.

    Counters continue from copy to copy, down to values below zero in the past, so that no rate jumps between two copies.
    """
    labels = dict(series["metric"])
    metric = labels.pop("__name__")
    # Quoted, as a name with a dot has to be.
    pairs = (f"{json.dumps(name)}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    name = f"{{{','.join([json.dumps(metric), *pairs])}}}"
    samples = [(float(at), float(value)) for at, value in series.get("values", [])]
    growth = 0.0
    if COUNTER.search(metric) and len(samples) > 1:
        # One step more, or each copy would begin with the last value of the one before.
        growth = (samples[-1][1] - samples[0][1]) * len(samples) / (len(samples) - 1)
    for copy, shift in zip(range(len(shifts), 0, -1), reversed(shifts), strict=True):
        for at, value in samples:
            yield f"{name} {value - copy * growth!r} {at - shift:.3f}\n"


def fill_past(
    name: Annotated[str, typer.Argument(help="System container.")],
    hours: Annotated[float, typer.Option(help="Hours to fill.")] = 6,
    skip: Annotated[int, typer.Option(help="Seconds after the first sample that are not copied.")] = 300,
) -> None:
    """Fill the hours before a system container was created."""
    address = f"http://127.0.0.1:{SystemContainer(name).published().get(9090, 9090)}/api/v1/query?"

    def query(text: str) -> list[Series]:
        with OPENER.open(address + urlencode({"query": text}), timeout=120) as answer:
            found: list[Series] = json.load(answer)["data"]["result"]
        return found

    def on_machine(*argv: str) -> str:
        return output("docker", "exec", name, *argv)

    now, first = time.time(), float(query('up{job="prometheus"}[1d]')[0]["values"][0][0])
    length = int(min(now - first - skip, MAX_COPIED_SECONDS)) // STEP * STEP
    if length < 120:
        raise UserError(f"only {length} s to copy (120 s or more).", "wait with `make traffic`, or lower --skip")
    # The newest copy ends at the first sample.
    distance = -(-int(now - first) // STEP) * STEP
    shifts = range(distance, distance + int(hours * 3600), length)
    found = query(f'{{__name__=~".+"}}[{length}s]')
    print(f"fill-past: {len(shifts)} copies of {len(found)} series over {length} s", flush=True)
    on_machine("sh", "-c", f"rm -rf {FOLDER} && mkdir -p {FOLDER}/blocks")
    write = ["docker", "exec", "-i", name, "sh", "-c", f"cat > {FOLDER}/past.om"]
    with subprocess.Popen(write, stdin=subprocess.PIPE, text=True) as writer:
        assert writer.stdin
        for series in found:
            writer.stdin.writelines(copy_series(series, shifts))
        writer.stdin.write("# EOF\n")
    image = on_machine("docker", "inspect", "-f", "{{.Config.Image}}", "vantage-prometheus").strip()
    on_machine(
        "docker", "run", "--rm", "--user=0:0", "--network=none", f"--volume={FOLDER}:/past", "--entrypoint=promtool",
        image, "tsdb", "create-blocks-from", "openmetrics", "/past/past.om", "/past/blocks",
    )  # fmt: skip
    # Prometheus looks for new blocks once a minute. Moved, not copied: it must not see a part of one.
    move = f"chown -R --reference={PROMETHEUS_DATA} {FOLDER}/blocks && mv {FOLDER}/blocks/* {PROMETHEUS_DATA}/"
    on_machine("sh", "-c", f"{move} && rm -r {FOLDER}")
