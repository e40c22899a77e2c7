"""Host and units: free resources of the host, and what each unit uses."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from vantage_tools.dashboards import board, links, panels
from vantage_tools.dashboards.panels import LAST, NONE, Options, Panels, Steps, colour, figure, graph, named
from vantage_tools.dashboards.queries import DISKS, now

HOST = 'instance=~"$instance"'
DISK = f"{HOST}, {DISKS}"
# Bridges and veth pairs would count the same bytes twice.
LINK = f'{HOST}, device!~"lo|veth.*|br-.*|docker.*|virbr.*"'
FILL: Steps = ((None, "green"), (0.8, "orange"), (0.9, "red"))
RESIDENT = '{__name__=~"process_resident_memory_bytes|otelcol_process_memory_rss_bytes"}'
MEMORY = f"sum by (service_name) ({RESIDENT})"
LIMIT = "max by (service_name) (service_name:memory_limit:bytes)"
# The limit applies to each replica: a full one is not balanced by an empty one.
OF_LIMIT = (
    f"max by (service_name) (sum by (service_name, instance) ({RESIDENT}) / on (service_name) group_left () {LIMIT})"
)


def build() -> Dashboard:
    """The dashboard."""
    return board.create(
        links.HOST,
        "Host and units",
        "Free resources of the host, and what each unit uses.",
        [board.instance_variable("node_uname_info", "")],
        {"": [*_figures(), *_machine()], "Units": _units()},
    )


def _rate(metric: str, condition: str = HOST) -> str:
    return f"sum(rate({metric}{{{condition}}}[$__rate_interval]))"


def _figures() -> Panels:
    yield from panels.figures(
        (
            ("CPU", "percentunit", FILL),
            "Share of CPU time in use, on the busiest host.",
            f'max(1 - avg by (instance) (rate(node_cpu_seconds_total{{{HOST}, mode="idle"}}[$__rate_interval])))',
        ),
        (
            ("Memory", "percentunit", FILL),
            "Share of memory in use, on the host with the least available.",
            f"max(1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}})",
        ),
        (
            ("Fullest disk", "percentunit", FILL),
            "Used share of the fullest file system.",
            f"max(1 - node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes{{{DISK}}})",
        ),
        panels.days_until_full(DISK),
        (
            ("Failed units", "none", NONE),
            "Vantage and Docker units in state failed.",
            f'sum(node_systemd_unit_state{{{HOST}, state="failed"}})',
        ),
        (
            ("OOM kills", "none", NONE),
            "Processes killed by the kernel for lack of memory in the last hour.",
            f"sum(increase(node_vmstat_oom_kill{{{HOST}}}[1h])) or vector(0)",
        ),
    )


def _machine() -> Panels:
    in_use = f'sum by (mode) (rate(node_cpu_seconds_total{{{HOST}, mode!="idle"}}[$__rate_interval]))'
    modes = [named("iowait", color=colour("red")), named("user", color=colour("blue"))]
    yield graph(
        "CPU by mode",
        "Share of CPU time by mode.",
        Options(width=12, unit="percentunit", minimum=0, maximum=1, overrides=modes, stacked=True, calcs=LAST),
        {"{{mode}}": f'{in_use} / scalar(count(node_cpu_seconds_total{{{HOST}, mode="idle"}}))'},
    )
    total = [named("total", custom__fillOpacity=0, color=colour("gray"))]
    yield graph(
        "Memory over time",
        "Memory used and total memory.",
        Options(width=12, unit="bytes", minimum=0, overrides=total),
        {
            "used": f"sum(node_memory_MemTotal_bytes{{{HOST}}} - node_memory_MemAvailable_bytes{{{HOST}}})",
            "total": f"sum(node_memory_MemTotal_bytes{{{HOST}}})",
        },
    )
    pressure = f"max(rate(node_pressure_{{}}_waiting_seconds_total{{{{{HOST}}}}}[$__rate_interval]))"
    yield graph(
        "Pressure",
        "Share of time in which some task waited for CPU, I/O or memory (pressure stall information). "
        "It rises before a resource is at 100 %.",
        Options(width=8, unit="percentunit", decimals=1, minimum=0),
        {name: pressure.format(name) for name in ("cpu", "io", "memory")},
    )
    for title, words, read, written in (
        (
            "Disk traffic",
            "Bytes per second read from and written to the disks; writes are drawn below zero.",
            ("read", _rate("node_disk_read_bytes_total")),
            ("written", _rate("node_disk_written_bytes_total")),
        ),
        (
            "Network traffic",
            "Bytes per second received and sent by the host's interfaces; sent bytes are drawn below zero.",
            ("received", _rate("node_network_receive_bytes_total", LINK)),
            ("sent", _rate("node_network_transmit_bytes_total", LINK)),
        ),
    ):
        expressions = {read[0]: read[1], written[0]: f"-{written[1]}"}
        yield graph(title, words, Options(width=8, unit="Bps", calcs=LAST), expressions)
    used = f"1 - node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes{{{DISK}}}"
    yield panels.bars(
        "Disk space used",
        "Used share of each file system; mounts of the same device have one bar.",
        Options(width=24, height=5, unit="percentunit", decimals=1, minimum=0, maximum=1, steps=FILL),
        now(f"max by (instance, device) ({used})", "{{device}} on {{instance}}"),
        name="${__field.labels.device} on ${__field.labels.instance}",
    )


def _units() -> Panels:
    logs = [links.to_dashboard("Its logs", links.LOGS, "var-service=${__field.labels.service_name}")]
    yield graph(
        "Memory by service",
        "Resident memory of each service's main process.",
        Options(width=8, unit="bytes", minimum=0, data_links=logs, calcs=LAST),
        {"{{service_name}}": MEMORY},
    )
    cpu = '{__name__=~"process_cpu_seconds_total|otelcol_process_cpu_seconds_total"}'
    yield graph(
        "CPU by service",
        "CPU time of each service's main process; 1 is one core.",
        Options(width=8, minimum=0, data_links=logs, calcs=LAST),
        {"{{service_name}}": f"sum by (service_name) (rate({cpu}[$__rate_interval]))"},
    )
    yield graph(
        "Restarts",
        "Automatic restarts by systemd in the preceding 10 minutes.",
        Options(width=8, unit="none", decimals=0, minimum=0, soft_maximum=3, steps=NONE, bars=True, calcs=("max",)),
        {"{{name}}": f"sum by (name) (increase(node_systemd_service_restart_total{{{HOST}}}[10m]))"},
    )
    columns = {
        "service_name": "Service",
        "Value #A": "Memory",
        "Value #B": "Limit",
        "Value #C": "Share of limit",
        "Value #D": "Restarts",
        "Value #E": "Unit",
    }
    is_active = {"type": "value", "options": {"1": {"text": "active"}, "0": {"text": "not active"}}}
    cells = [
        named("Memory", **figure("bytes")),
        named("Limit", **figure("bytes")),
        named("Share of limit", **figure("percentunit", 0, FILL)),
        named("Restarts", **figure("", 0, ((None, "green"), (1, "orange"), (5, "red")))),
        named("Unit", **figure(steps=((None, "red"), (1, "green"))), mappings=[is_active]),
    ]
    steps = panels.joined(columns)
    yield panels.listing(
        "Units",
        "Memory, memory limit and its used share, restarts by systemd since boot, and the unit's state. "
        "For replicas: the memory of all, the limit of each, and the share of the fullest.",
        Options(width=24, height=10, empty="No units found", transformations=steps, overrides=cells),
        MEMORY,
        LIMIT,
        OF_LIMIT,
        _of_unit(f"node_systemd_service_restart_total{{{HOST}}}"),
        _of_unit(f'node_systemd_unit_state{{{HOST}, state="active"}}'),
    )


def _of_unit(metric: str) -> str:
    """Return the expression with the label service_name, taken from the unit's name."""
    renamed = f'label_replace({metric}, "service_name", "$1", "name", "(?:vantage-)?(.+)\\\\.service")'
    return f"max by (service_name) ({renamed})"
