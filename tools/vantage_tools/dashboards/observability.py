"""Monitoring stack: whether metrics, log lines and spans arrive, how late, and how much storage is left."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from vantage_tools.dashboards import board, links
from vantage_tools.dashboards.panels import (
    NEUTRAL,
    PanelOptions,
    Panels,
    Steps,
    days_until_full,
    figures,
    graph,
    listing,
    named,
    states,
    steps_of,
    transform,
)
from vantage_tools.dashboards.queries import DISKS, PROMETHEUS, over_time, rows

NONE: Steps = ((None, "green"), (1, "red"))
SOME: Steps = ((None, "green"), (1e-9, "red"))
# Seconds until an event can be queried.
DELAY: Steps = ((None, "green"), (30, "orange"), (120, "red"))
I = "[$__rate_interval]"  # noqa: E741 - it is read inside long expressions

# Data that a component refused or dropped. `or vector(0)` where a counter appears only with its first drop.
DROPS = {
    "Promtail lines": f"sum(rate(promtail_dropped_entries_total{I})) or vector(0)",
    "Loki lines": f"sum(rate(loki_discarded_samples_total{I})) or vector(0)",
    "Jaeger spans": f"sum(rate(otelcol_receiver_refused_spans_total{I})) + sum(rate(otelcol_exporter_send_failed_spans_total{I}))"
    " or vector(0)",
    "app spans": f"sum(rate(vantage_spans_dropped_total{I})) or vector(0)",
    "Prometheus samples": f"sum(rate(prometheus_target_scrapes_sample_out_of_order_total{I})"
    f" + rate(prometheus_target_scrapes_exceeded_sample_limit_total{I})) or vector(0)",
    "Prometheus alerts": f"sum(rate(prometheus_notifications_dropped_total{I})) or vector(0)",
}


def build() -> Dashboard:
    """The dashboard."""
    stack = board.create(
        links.STACK,
        "Monitoring stack",
        "Whether metrics, log lines and spans arrive, how late they are, what is dropped, and how much storage is left.",
    )
    stack.with_variable(board.service_variable("up"))
    stack.with_variable(board.instance_variable("up"))
    for panel in (*_figures(), *_arrival()):
        stack.with_panel(panel)
    stack.with_row(Row("Delay and storage"))
    for panel in _room():
        stack.with_panel(panel)
    stack.with_row(Row("Engines"))
    for panel in _engines():
        stack.with_panel(panel)
    return stack


def _figures() -> Panels:
    lost = " + ".join(f"({expr.replace(I, '[5m]')})" for expr in DROPS.values())
    yield from figures(
        ("Targets down", "Scrape targets that are down.", "none", NONE, "count(up == 0) or vector(0)"),
        (
            "Dropped data",
            "Log lines, spans, samples and alerts dropped per second over 5 minutes.",
            "short",
            SOME,
            lost,
        ),
        (
            "Failed reloads",
            "Engines that refused their newest config and run the previous one.",
            "none",
            NONE,
            "count(prometheus_config_last_reload_successful == 0 or alertmanager_config_last_reload_successful == 0 "
            "or increase(promtail_config_reload_fail_total[1h]) > 0) or vector(0)",
        ),
        (
            "Failing rules",
            "Failed rule evaluations in the last 15 minutes.",
            "none",
            NONE,
            "sum(increase(prometheus_rule_evaluation_failures_total[15m])) or vector(0)",
        ),
        days_until_full(DISKS),
        (
            "Ingestion delay",
            "Seconds until a new sample, log line or span can be queried; the slowest of the three.",
            "s",
            DELAY,
            f"max({_scrape_age()} or {_line_delay('[5m]')} or {_span_delay('[5m]')})",
        ),
    )


def _scrape_age() -> str:
    """Seconds since the newest sample of the target that was scraped longest ago."""
    return 'label_replace(max(time() - timestamp(up)), "kind", "metrics", "", "")'


def _line_delay(window: str) -> str:
    """Mean seconds from a line's time stamp to its arrival in Loki, by its pushes."""
    pushes = f'sum(rate(loki_request_duration_seconds_count{{route="loki_api_v1_push"}}{window}))'
    delay = f"sum(rate(loki_distributor_lag_ms_total{window})) / 1000 / ({pushes} > 0)"
    return f'label_replace({delay}, "kind", "lines", "", "")'


def _span_delay(window: str) -> str:
    """Mean seconds a span waits in its app's queue, and half a second of batching in the collector.

    Waiting is length by throughput: https://en.wikipedia.org/wiki/Little%27s_law
    """
    waiting = (
        f"sum(avg_over_time(vantage_span_queue_length{window})) / (sum(rate(vantage_spans_exported_total{window})) > 0)"
    )
    return f'label_replace(0.5 + {waiting}, "kind", "spans", "", "")'


def _arrival() -> Panels:
    yield states(
        PanelOptions(
            title="Targets",
            description="Scrape result of each target: green is up, red is down.",
            source=PROMETHEUS, width=24, height=8, steps=((None, "red"), (1, "green")),
            overrides=[],
        ),
        over_time('min by (job, instance) (up{service_name=~"$service", instance=~"$instance"})', "{{job}} {{instance}}"),
    )  # fmt: skip
    for title, words, unit, expr, legend in (
        (
            "Samples ingested",
            "Samples per second stored by Prometheus.",
            "cps",
            f"sum(rate(prometheus_tsdb_head_samples_appended_total{I}))",
            "samples",
        ),
        (
            "Log lines ingested",
            "Log lines per second accepted by Loki.",
            "cps",
            f"sum(rate(loki_distributor_lines_received_total{I}))",
            "lines",
        ),
        (
            "Spans ingested",
            "Spans per second accepted by Jaeger.",
            "cps",
            f"sum(rate(otelcol_receiver_accepted_spans_total{I}))",
            "spans",
        ),
    ):
        yield graph(
            PanelOptions(title=title, description=words, source=PROMETHEUS, width=6, height=7, unit=unit, minimum=0),
            over_time(expr, legend),
        )
    yield graph(
        PanelOptions(
            title="Dropped data over time",
            description="Data dropped per second, by component. Anything above 0 is missing from the dashboards.",
            source=PROMETHEUS, width=6, height=7, unit="cps", minimum=0, steps=SOME,
        ),
        *(over_time(expr, name, ref) for (name, expr), ref in zip(DROPS.items(), "ABCDEF", strict=True)),
        calcs=("max",),
    )  # fmt: skip


def _room() -> Panels:
    yield graph(
        PanelOptions(
            title="Ingestion delay by signal",
            description="Seconds until an event can be queried: age of the oldest scrape, mean lag of log lines, and the "
            "time a span waits to be sent and stored.",
            source=PROMETHEUS, width=8, unit="s", minimum=0, steps=DELAY,
        ),
        over_time(_scrape_age(), "metrics", "A"),
        over_time(_line_delay(I), "lines", "B"),
        over_time(_span_delay(I), "spans", "C"),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Storage size",
            description="Bytes on disk reported by Prometheus and Jaeger. Loki reports none: see the file system on "
            "“Host and units”.",
            source=PROMETHEUS, width=8, unit="bytes", minimum=0,
        ),
        over_time(
            "sum(prometheus_tsdb_storage_blocks_bytes + prometheus_tsdb_wal_storage_size_bytes + "
            "prometheus_tsdb_head_chunks_storage_size_bytes)", "Prometheus", "A",
        ),
        over_time("sum(jaeger_storage_badger_size_bytes_lsm)", "Jaeger, index", "B"),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield listing(
        PanelOptions(
            title="Retention",
            description="Retention of Prometheus and the age of its oldest sample. The retention of Jaeger and Loki is "
            "set in their roles.",
            source=PROMETHEUS, width=8, empty="Prometheus does not scrape itself",
            transformations=[
                transform("labelsToFields"),
                transform("joinByField", byField="service_name", mode="outer"),
                transform("filterFieldsByName", include={"pattern": "service_name|Value.*"}),
                transform(
                    "organize",
                    renameByName={
                        "service_name": "Store", "Value #A": "Retention", "Value #B": "Oldest sample", "Value #C": "Size limit",
                    },
                ),
            ],
            overrides=[
                named("Retention", unit="s", thresholds=steps_of(NEUTRAL)),
                named("Oldest sample", unit="s", thresholds=steps_of(NEUTRAL)),
                named("Size limit", unit="bytes", thresholds=steps_of(NEUTRAL)),
            ],
        ),
        rows("max by (service_name) (prometheus_tsdb_retention_limit_seconds)", "A"),
        rows("max by (service_name) (time() - prometheus_tsdb_lowest_timestamp_seconds)", "B"),
        rows("max by (service_name) (prometheus_tsdb_retention_limit_bytes)", "C"),
    )  # fmt: skip


def _engines() -> Panels:
    yield graph(
        PanelOptions(
            title="Engine latency",
            description="p95 latency of Loki's queries, Prometheus' HTTP API and Jaeger's storage.",
            source=PROMETHEUS, width=8, unit="s", minimum=0,
        ),
        over_time(
            "histogram_quantile(0.95, sum by (le) (rate(loki_request_duration_seconds_bucket"
            f'{{route=~"loki_api_v1_query.*"}}{I})))', "Loki queries", "A",
        ),
        over_time(
            "histogram_quantile(0.95, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket"
            f'{{handler=~"/api/v1/query.*"}}{I})))', "Prometheus queries", "B",
        ),
        over_time(
            f"histogram_quantile(0.95, sum by (le) (rate(jaeger_storage_latency_seconds_bucket{I})))", "Jaeger storage", "C",
        ),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Series and streams",
            description="Series and streams in memory. A steep rise means a label with too many values.",
            source=PROMETHEUS, width=8, unit="locale", decimals=0, minimum=0,
        ),
        over_time("sum(prometheus_tsdb_head_series)", "Prometheus series", "A"),
        over_time("sum(loki_ingester_memory_streams)", "Loki streams", "B"),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield listing(
        PanelOptions(
            title="Versions",
            description="Versions as reported by each process.",
            source=PROMETHEUS, width=8, empty="No process reports its version",
            transformations=[
                transform("filterFieldsByName", include={"names": ["service_name", "version", "instance"]}),
                transform(
                    "organize",
                    indexByName={"service_name": 0, "version": 1, "instance": 2},
                    renameByName={"service_name": "Service", "version": "Version", "instance": "Instance"},
                ),
            ],
        ),
        rows(
            "group by (service_name, version, instance) ({__name__=~\"(loki|prometheus|promtail|alertmanager|node_exporter|"
            "vantage|grafana)_build_info\"} or label_replace(target_info{service_name=\"jaeger\"}, \"version\", \"$1\", "
            "\"service.version\", \"v?(.+)\"))"
        ),
        sort="Service", descending=False,
    )  # fmt: skip
