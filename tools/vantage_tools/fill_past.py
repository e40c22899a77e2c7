"""`vantage fill-past`: fills the stores of a system container with hours before its creation, to try dashboards and reports.

What the machine measured is copied again and again into the hours before: samples by promtool, log lines and spans through the
engines' APIs. Each copy has its own trace ids, the same in lines and spans. Counters continue from copy to copy, down to values
below zero in the past, so that no rate jumps between two copies. Recorded series are copied like scraped ones; exemplars and
span metrics are not. Copied lines have the label filled="true", since Loki takes old lines only into a new stream.

For test machines only: Jaeger is restarted twice, and what is filled in cannot be removed.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import yaml

from vantage_tools.errors import UserError
from vantage_tools.process import output
from vantage_tools.vm.container import SystemContainer
from vantage_tools.waiting import OPENER, wait_until

STEP = 15  # seconds between scrapes; copies are shifted by whole steps
BLOCK = 7200  # seconds of a block of Prometheus and of a chunk of Loki
FOLDER = "/var/tmp/vantage-past"
PROMETHEUS_DATA = "/var/lib/vantage/prometheus"
JAEGER_CONFIG = "/etc/vantage/jaeger/jaeger.yml"
COUNTER = re.compile(r"^(?!.*:)(.*(_total|_count|_sum|_bucket)$|node_(vmstat|netstat)_)")
# Times, which are shifted with their copy; that of a process start is not, or each copy would be a restart.
TIME = re.compile(r"(?<!process_start)_(time|timestamp)_seconds$")
OLDEST_SAMPLE = "min_over_time(timestamp(up{job='prometheus'})[1d:15s])"
DOTTED = re.compile(r"^[\w:]*\.|[{,]\w*\.[\w.]*=\"")
LABEL = re.compile(r'([A-Za-z_][\w.]*)=("(?:[^"\\]|\\.)*")')
TRACE_ID = re.compile(r"\b[0-9a-f]{32}\b")
SPAN_TIMES = ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano")

# Of Prometheus, Loki, Jaeger and its OTLP receiver.
PORTS = (9090, 3100, 16686, 4318)

Samples = list[tuple[int, float]]


@dataclass
class Plan:
    """The time that is copied, from begin to end; the copies end at the first sample. All in seconds."""

    begin: int
    end: int
    first_sample: int
    copies: int

    @property
    def length(self) -> int:
        return self.end - self.begin

    def shifts(self) -> Iterator[tuple[int, int]]:
        """Yield (number of the copy, seconds that it lies before its original), the oldest copy first."""
        for copy in range(self.copies, 0, -1):
            yield copy, self.begin - self.first_sample + copy * self.length


def on_machine(name: str, *argv: str) -> str:
    return output("docker", "exec", name, *argv)


def request(url: str, body: Any = None, headers: dict[str, str] | None = None, **parameters: object) -> str:
    """Return the answer to a GET, or a POST of JSON; an engine that is overloaded or starting is asked again."""
    url += "?" + urllib.parse.urlencode(parameters) if parameters else ""
    data = None if body is None else json.dumps(body).encode()
    query = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    for _ in range(30):
        try:
            with OPENER.open(query, timeout=120) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            if error.code == 404 and "no traces" in said.lower():
                return ""
            if error.code not in (429, 503):
                raise UserError(f"{url[:150]} answers {error.code}: {said[:500]!r}") from error
        except OSError:
            pass
        time.sleep(1)
    raise UserError(f"{url[:150]} accepts nothing for 30 s.")


def with_other_ids(text: str, copy: int) -> str:
    """Return the text with other trace ids: equal ids stay equal."""
    return TRACE_ID.sub(lambda found: f"{int(found[0][:8], 16) ^ (copy << 20 | 0x5A):08x}{found[0][8:]}", text)


def parse_dump(dump: Iterable[str]) -> Iterator[tuple[str, Samples]]:
    """Yield each series of promtool's dump with its samples, times in milliseconds."""
    name, samples = "", list[tuple[int, float]]()
    for line in dump:
        if line.startswith("#"):
            continue
        series, value, at = line.rsplit(" ", 2)
        if series != name:
            if samples:
                yield name, samples
            name, samples = series, []
        if value != "NaN":  # the end of a series
            samples.append((round(float(at) * 1000), float(value)))
    if samples:
        yield name, samples


def quote_names(series: str) -> str:
    """Return the series with names in quotes if they have dots, as Prometheus reads but promtool does not write them."""
    if not DOTTED.search(series):
        return series
    metric, _, labels = series.partition("{")
    inner = LABEL.sub(lambda found: f'"{found[1]}"={found[2]}', labels.removesuffix("}"))
    return "{" + ",".join(filter(None, [f'"{metric}"', inner])) + "}"


def copy_samples(series: str, samples: Samples, plan: Plan) -> Iterator[tuple[int, float]]:
    """Yield the samples of all copies, oldest first."""
    metric = series.partition("{")[0]
    original = [(at, value) for at, value in samples if plan.begin * 1000 <= at < plan.end * 1000]
    # Prometheus keeps ALERTS_FOR_STATE between restarts.
    if not original or metric == "ALERTS_FOR_STATE":
        return
    is_counter, is_time = COUNTER.search(metric), TIME.search(metric)
    # One step more, or each copy would begin with the last value of the one before.
    growth = (original[-1][1] - original[0][1]) * (1 + 1 / max(len(original) - 1, 1))
    for copy, shift in plan.shifts():
        offset = samples[0][1] - original[0][1] - copy * growth if is_counter else -shift if is_time else 0.0
        yield from ((at - shift * 1000, value + offset) for at, value in original)


def fill_prometheus(name: str, plan: Plan) -> str:
    """Write blocks with the copies into Prometheus' data; return a summary."""
    on_machine(name, "sh", "-c", f"rm -rf {FOLDER} && mkdir -p {FOLDER}/blocks")
    image = on_machine(name, "docker", "inspect", "-f", "{{.Config.Image}}", "vantage-prometheus").strip()
    promtool = "docker exec vantage-prometheus promtool tsdb dump-openmetrics /prometheus"
    writers: dict[int, subprocess.Popen[str]] = {}
    total = 0
    with subprocess.Popen(
        ["docker", "exec", name, *promtool.split()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as dump:
        for series, samples in parse_dump(dump.stdout or ()):
            shown = quote_names(series)
            for at, value in copy_samples(series, samples, plan):
                block, total = at // 1000 // BLOCK, total + 1
                if block not in writers:
                    command = ["docker", "exec", "-i", name, "sh", "-c", f"cat > {FOLDER}/{block}.om"]
                    writers[block] = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
                print(shown, repr(value), f"{at / 1000:.3f}", file=writers[block].stdin)
    for writer in writers.values():
        writer.communicate("# EOF\n")
    if dump.returncode or not total:
        raise UserError("promtool returned no samples.", "wait until the machine has run longer than --skip")
    for block in sorted(writers):
        on_machine(
            name, "docker", "run", "--rm", "--user=0:0", "--network=none", f"--volume={FOLDER}:/past", "--entrypoint=promtool",
            image, "tsdb", "create-blocks-from", "openmetrics", f"/past/{block}.om", "/past/blocks",
        )  # fmt: skip
    # Prometheus looks for new blocks once a minute. Moved, not copied: it must not see a part of one.
    blocks = f"{FOLDER}/blocks"
    move = f"chown -R --reference={PROMETHEUS_DATA} {blocks} && mv {blocks}/* {PROMETHEUS_DATA}/ && rm -rf {FOLDER}"
    on_machine(name, "sh", "-c", move)
    return f"{total} samples"


def read_lines(loki: str, plan: Plan) -> dict[str, set[tuple[int, str, str]]]:
    """Return the lines by the labels of their stream as JSON: (nanoseconds, line, structured metadata as JSON)."""
    streams: dict[str, set[tuple[int, str, str]]] = {}
    start, limit = plan.begin * 10**9, 4000
    while True:
        answer = request(
            f"{loki}/loki/api/v1/query_range", headers={"X-Loki-Response-Encoding-Flags": "categorize-labels"},
            query='{service_name=~".+", filled=""}', start=start, end=plan.end * 10**9, limit=limit, direction="forward",
        )  # fmt: skip
        last, found, before = start, 0, sum(map(len, streams.values()))
        for stream in json.loads(answer)["data"]["result"]:
            lines = streams.setdefault(json.dumps(stream["stream"], sort_keys=True), set())
            for at, line, *rest in stream["values"]:
                lines.add((int(at), line, json.dumps((rest[0] if rest else {}).get("structuredMetadata", {}))))
                last, found = max(last, int(at)), found + 1
        if found < limit:
            return streams
        start = last if sum(map(len, streams.values())) > before else last + 1


def fill_loki(loki: str, plan: Plan) -> str:
    """Push the copies of all lines to Loki; return a summary."""
    streams, total = read_lines(loki, plan), 0
    for copy, shift in plan.shifts():
        for labels, lines in streams.items():
            stream = {**json.loads(labels), "filled": "true"}
            values = [
                [str(at - shift * 10**9), with_other_ids(line, copy), json.loads(with_other_ids(metadata, copy))]
                for at, line, metadata in sorted(lines)
            ]
            for first in range(0, len(values), 1000):
                pushed = {"stream": stream, "values": values[first : first + 1000]}
                request(f"{loki}/loki/api/v1/push", {"streams": [pushed]})
            total += len(values)
        if (plan.copies - copy) * plan.length % BLOCK < plan.length:
            request(f"{loki}/flush", {})
    request(f"{loki}/flush", {})
    return f"{total} lines in {len(streams)} streams"


def read_spans(jaeger: str, plan: Plan) -> list[dict[str, Any]]:
    traces: dict[str, list[dict[str, Any]]] = {}
    decoder = json.JSONDecoder()
    services = set(json.loads(request(f"{jaeger}/api/services"))["data"]) - {"jaeger"}
    for service, start in ((service, start) for service in services for start in range(plan.begin, plan.end, 60)):
        begin, end = (time.strftime("%FT%TZ", time.gmtime(at)) for at in (start, min(start + 60, plan.end)))
        times = {"query.start_time_min": begin, "query.start_time_max": end}
        text = request(f"{jaeger}/api/v3/traces", **{"query.service_name": service, "query.num_traces": 1000, **times})
        found: dict[str, list[dict[str, Any]]] = {}
        while text := text.strip():
            part, length = decoder.raw_decode(text)
            text = text[length:]
            for resource in part["result"].get("resourceSpans", []):
                found.setdefault(resource["scopeSpans"][0]["spans"][0]["traceId"], []).append(resource)
        traces = found | traces
    return [resource for resources in traces.values() for resource in resources]


def shifted(value: Any, shift: int) -> Any:
    """Return spans with their times this many nanoseconds earlier."""
    if isinstance(value, dict):
        return {k: str(int(v) - shift) if k in SPAN_TIMES else shifted(v, shift) for k, v in value.items()}
    return [shifted(inner, shift) for inner in value] if isinstance(value, list) else value


def restart_jaeger(name: str) -> None:
    on_machine(name, "systemctl", "restart", "vantage-jaeger")

    def is_ready() -> bool:
        services = json.loads(on_machine(name, "/usr/local/lib/vantage/vantage_unit.py", "list", "--json"))
        return any(one["service"] == "jaeger" and one["readiness"]["ready"] for one in services)

    if not wait_until(is_ready, 120, pause=1):
        raise UserError("jaeger is not ready after 120 s.", f"docker exec {name} journalctl -u vantage-jaeger")


def fill_jaeger(name: str, jaeger: str, otlp: str, plan: Plan) -> str:
    """Send the copies of all spans to Jaeger; return a summary."""
    spans = read_spans(jaeger, plan)
    # Without the span metrics, or old spans would count as requests of today.
    config = yaml.safe_load(on_machine(name, "cat", JAEGER_CONFIG))
    pipelines = config["service"]["pipelines"]
    del pipelines["metrics/spanmetrics"]
    pipelines["traces"]["exporters"].remove("spanmetrics")
    on_machine(name, "cp", "-p", JAEGER_CONFIG, "/run/vantage-jaeger.yml")
    try:
        on_machine(name, "sh", "-c", f"cat > {JAEGER_CONFIG} <<'END'\n{json.dumps(config)}\nEND")
        restart_jaeger(name)
        for copy, shift in plan.shifts():
            resources = shifted(spans, shift * 10**9)
            for first in range(0, len(resources), 400):
                body = with_other_ids(json.dumps({"resourceSpans": resources[first : first + 400]}), copy)
                request(f"{otlp}/v1/traces", json.loads(body))
    finally:
        on_machine(name, "cp", "-p", "/run/vantage-jaeger.yml", JAEGER_CONFIG)
        restart_jaeger(name)
    return f"{json.dumps(spans).count('spanId') * plan.copies} spans"


def fill_past(
    name: Annotated[str, typer.Argument(help="System container.")],
    hours: Annotated[float, typer.Option(help="Hours to fill.")] = 6,
    skip: Annotated[int, typer.Option(help="Seconds after the first sample that are not copied.")] = 300,
) -> None:
    """Fill the hours before a system container was created."""
    published = SystemContainer(name).published()
    prometheus, loki, jaeger, otlp = (f"http://127.0.0.1:{published.get(port, port)}" for port in PORTS)
    oldest = json.loads(request(f"{prometheus}/api/v1/query", query=OLDEST_SAMPLE))["data"]["result"][0]
    first_sample = int(float(oldest["value"][1])) // STEP * STEP
    begin, end = first_sample + -(-skip // STEP) * STEP, (int(time.time()) - 60) // STEP * STEP
    if end - begin < 120:
        raise UserError(f"only {end - begin} s to copy (120 s or more).", "wait with `make traffic`, or lower --skip")
    plan = Plan(begin, end, first_sample, copies=-(-int(hours * 3600) // (end - begin)))
    print(f"fill-past: {plan.copies} copies of {plan.length} s", flush=True)
    fills: dict[str, Callable[[], str]] = {
        "loki": lambda: fill_loki(loki, plan),
        "jaeger": lambda: fill_jaeger(name, jaeger, otlp, plan),
        "prometheus": lambda: fill_prometheus(name, plan),
    }
    for store, fill in fills.items():
        start = time.monotonic()
        print(f"fill-past: {store}: {fill()} ({time.monotonic() - start:.0f} s)", flush=True)
