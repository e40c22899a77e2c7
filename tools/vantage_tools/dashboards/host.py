"""Host and units: free resources of the host, and what each unit uses."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from vantage_tools.dashboards import board, links
from vantage_tools.dashboards.panels import (
    NEUTRAL,
    PanelOptions,
    Panels,
    Steps,
    bars,
    colour,
    days_until_full,
    figures,
    graph,
    listing,
    named,
    steps_of,
    transform,
)
from vantage_tools.dashboards.queries import DISKS, PROMETHEUS, now, over_time, rows

HOST = 'instance=~"$instance"'
DISK = f"{HOST}, {DISKS}"
# Bridges and veth pairs would count the same bytes twice.
LINK = f'{HOST}, device!~"lo|veth.*|br-.*|docker.*|virbr.*"'
FILL: Steps = ((None, "green"), (0.8, "orange"), (0.9, "red"))
NONE: Steps = ((None, "green"), (1, "red"))
RESIDENT = '{__name__=~"process_resident_memory_bytes|otelcol_process_memory_rss_bytes"}'
MEMORY = f"sum by (service_name) ({RESIDENT})"
LIMIT = "max by (service_name) (service_name:memory_limit:bytes)"
# The limit applies to each replica: a full one is not balanced by an empty one.
OF_LIMIT = (
    f"max by (service_name) (sum by (service_name, instance) ({RESIDENT}) / on (service_name) group_left () {LIMIT})"
)


def build() -> Dashboard:
    """The dashboard."""
    host = board.create(links.HOST, "Host and units", "Free resources of the host, and what each unit uses.")
    host.with_variable(board.instance_variable("node_uname_info", ""))
    for panel in (*_figures(), *_machine()):
        host.with_panel(panel)
    host.with_row(Row("Units"))
    for panel in _units():
        host.with_panel(panel)
    return host


def _figures() -> Panels:
    yield from figures(
        (
            "CPU",
            "Share of CPU time in use, on the busiest host.",
            "percentunit",
            FILL,
            f'max(1 - avg by (instance) (rate(node_cpu_seconds_total{{{HOST}, mode="idle"}}[$__rate_interval])))',
        ),
        (
            "Memory",
            "Share of memory in use, on the host with the least available.",
            "percentunit",
            FILL,
            f"max(1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}})",
        ),
        (
            "Fullest disk",
            "Used share of the fullest file system.",
            "percentunit",
            FILL,
            f"max(1 - node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes{{{DISK}}})",
        ),
        days_until_full(DISK),
        (
            "Failed units",
            "Vantage and Docker units in state failed.",
            "none",
            NONE,
            f'sum(node_systemd_unit_state{{{HOST}, state="failed"}})',
        ),
        (
            "OOM kills",
            "Processes killed by the kernel for lack of memory in the last hour.",
            "none",
            NONE,
            f"sum(increase(node_vmstat_oom_kill{{{HOST}}}[1h])) or vector(0)",
        ),
    )


def _machine() -> Panels:
    yield graph(
        PanelOptions(
            title="CPU by mode",
            description="Share of CPU time by mode.",
            source=PROMETHEUS, width=12, unit="percentunit", minimum=0, maximum=1,
            overrides=[named("iowait", color=colour("red")), named("user", color=colour("blue"))],
        ),
        over_time(
            f'sum by (mode) (rate(node_cpu_seconds_total{{{HOST}, mode!="idle"}}[$__rate_interval])) '
            f'/ scalar(count(node_cpu_seconds_total{{{HOST}, mode="idle"}}))', "{{mode}}",
        ),
        stacked=True, calcs=("lastNotNull",),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Memory over time",
            description="Memory used and total memory.",
            source=PROMETHEUS, width=12, unit="bytes", minimum=0,
            overrides=[named("total", custom__fillOpacity=0, color=colour("gray"))],
        ),
        over_time(f"sum(node_memory_MemTotal_bytes{{{HOST}}} - node_memory_MemAvailable_bytes{{{HOST}}})", "used", "A"),
        over_time(f"sum(node_memory_MemTotal_bytes{{{HOST}}})", "total", "B"),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Pressure",
            description="Share of time in which some task waited for CPU, I/O or memory (pressure stall information). "
            "It rises before a resource is at 100 %.",
            source=PROMETHEUS, width=8, unit="percentunit", decimals=1, minimum=0,
        ),
        *(
            over_time(f"max(rate(node_pressure_{name}_waiting_seconds_total{{{HOST}}}[$__rate_interval]))", name, ref)
            for name, ref in (("cpu", "A"), ("io", "B"), ("memory", "C"))
        ),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Disk traffic",
            description="Bytes per second read from and written to the disks; writes are drawn below zero.",
            source=PROMETHEUS, width=8, unit="Bps",
        ),
        over_time(f"sum(rate(node_disk_read_bytes_total{{{HOST}}}[$__rate_interval]))", "read", "A"),
        over_time(f"-sum(rate(node_disk_written_bytes_total{{{HOST}}}[$__rate_interval]))", "written", "B"),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Network traffic",
            description="Bytes per second received and sent by the host's interfaces; sent bytes are drawn below zero.",
            source=PROMETHEUS, width=8, unit="Bps",
        ),
        over_time(f"sum(rate(node_network_receive_bytes_total{{{LINK}}}[$__rate_interval]))", "received", "A"),
        over_time(f"-sum(rate(node_network_transmit_bytes_total{{{LINK}}}[$__rate_interval]))", "sent", "B"),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield bars(
        PanelOptions(
            title="Disk space used",
            description="Used share of each file system; mounts of the same device have one bar.",
            source=PROMETHEUS, width=24, height=5, unit="percentunit", decimals=1, minimum=0, maximum=1, steps=FILL,
        ),
        now(
            f"max by (instance, device) (1 - node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes{{{DISK}}})",
            "{{device}} on {{instance}}",
        ),
        name="${__field.labels.device} on ${__field.labels.instance}",
    )  # fmt: skip


def _units() -> Panels:
    logs = [links.to_dashboard("Its logs", links.LOGS, "var-service=${__field.labels.service_name}")]
    yield graph(
        PanelOptions(
            title="Memory by service",
            description="Resident memory of each service's main process.",
            source=PROMETHEUS, width=8, unit="bytes", minimum=0, data_links=logs,
        ),
        over_time(MEMORY, "{{service_name}}"),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="CPU by service",
            description="CPU time of each service's main process; 1 is one core.",
            source=PROMETHEUS, width=8, unit="short", minimum=0, data_links=logs,
        ),
        over_time(
            'sum by (service_name) (rate({__name__=~"process_cpu_seconds_total|otelcol_process_cpu_seconds_total"}'
            "[$__rate_interval]))", "{{service_name}}",
        ),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Restarts",
            description="Automatic restarts by systemd in the preceding 10 minutes.",
            source=PROMETHEUS, width=8, unit="none", decimals=0, minimum=0, soft_maximum=3, steps=NONE,
        ),
        over_time(f"sum by (name) (increase(node_systemd_service_restart_total{{{HOST}}}[10m]))", "{{name}}"),
        bars=True, calcs=("max",),
    )  # fmt: skip
    filled = {"type": "color-background", "mode": "basic"}
    yield listing(
        PanelOptions(
            title="Units",
            description="Memory, memory limit and its used share, restarts by systemd since boot, and the unit's state. "
            "For replicas: the memory of all, the limit of each, and the share of the fullest.",
            source=PROMETHEUS, width=24, height=10, empty="No units found",
            transformations=[
                transform("joinByField", byField="service_name", mode="outer"),
                transform("filterFieldsByName", include={"pattern": "service_name|Value.*"}),
                transform(
                    "organize",
                    renameByName={
                        "service_name": "Service", "Value #A": "Memory", "Value #B": "Limit", "Value #C": "Share of limit",
                        "Value #D": "Restarts", "Value #E": "Unit",
                    },
                ),
            ],
            overrides=[
                named("Memory", unit="bytes", thresholds=steps_of(NEUTRAL)),
                named("Limit", unit="bytes", thresholds=steps_of(NEUTRAL)),
                named("Share of limit", unit="percentunit", decimals=0, thresholds=steps_of(FILL), custom__cellOptions=filled),
                named(
                    "Restarts", decimals=0, thresholds=steps_of(((None, "green"), (1, "orange"), (5, "red"))),
                    custom__cellOptions=filled,
                ),
                named(
                    "Unit", thresholds=steps_of(((None, "red"), (1, "green"))), custom__cellOptions=filled,
                    mappings=[{"type": "value", "options": {"1": {"text": "active"}, "0": {"text": "not active"}}}],
                ),
            ],
        ),
        rows(MEMORY, "A"),
        rows(LIMIT, "B"),
        rows(OF_LIMIT, "C"),
        rows(_of_unit("node_systemd_service_restart_total{" + HOST + "}"), "D"),
        rows(_of_unit("node_systemd_unit_state{" + HOST + ', state="active"}'), "E"),
    )  # fmt: skip


def _of_unit(metric: str) -> str:
    """Return the expression with the label service_name, taken from the unit's name."""
    renamed = f'label_replace({metric}, "service_name", "$1", "name", "(?:vantage-)?(.+)\\\\.service")'
    return f"max by (service_name) ({renamed})"
