"""Monitoring stack: whether metrics, log lines and spans arrive, how late, and how much storage is left."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from vantage_tools.dashboards import board, links, panels
from vantage_tools.dashboards.panels import LAST, NONE, Options, Panels, Steps, figure, graph, listing, named, transform
from vantage_tools.dashboards.queries import DISKS, over_time

SOME: Steps = ((None, "green"), (1e-9, "red"))
# Seconds until an event can be queried.
DELAY: Steps = ((None, "green"), (30, "orange"), (120, "red"))
INTERVAL = "[$__rate_interval]"


def build() -> Dashboard:
    """The dashboard."""
    return board.create(
        links.STACK,
        "Monitoring stack",
        "Whether metrics, log lines and spans arrive, how late they are, what is dropped, and how much storage is left.",
        [board.service_variable("up"), board.instance_variable("up")],
        {
            "": [*_figures(), *_arrival()],
            "Check of each minute": _checks(),
            "Delay and storage": _room(),
            "Engines": _engines(),
        },
    )


def _drops(window: str) -> dict[str, str]:
    """Data that a component refused or dropped. `or vector(0)` where a counter appears only with its first drop."""

    def rate(metric: str) -> str:
        return f"sum(rate({metric}{window}))"

    scrapes = "prometheus_target_scrapes_"
    counters = {
        "journal lines": rate("promtail_custom_journal_suppressed_lines_total"),
        "Promtail lines": rate("promtail_dropped_entries_total"),
        "Loki lines": rate("loki_discarded_samples_total"),
        "Jaeger spans": f"{rate('otelcol_receiver_refused_spans_total')} + "
        f"{rate('otelcol_exporter_send_failed_spans_total')}",
        "app spans": rate("vantage_spans_dropped_total"),
        "app lines": rate("vantage_log_lines_dropped_total"),
        "Prometheus samples": f"sum(rate({scrapes}sample_out_of_order_total{window})"
        f" + rate({scrapes}exceeded_sample_limit_total{window}))",
        "Prometheus alerts": rate("prometheus_notifications_dropped_total"),
    }
    return {name: f"{expr} or vector(0)" for name, expr in counters.items()}


def _figures() -> Panels:
    yield from panels.figures(
        (("Targets down", "none", NONE), "Scrape targets that are down.", "count(up == 0) or vector(0)"),
        (
            ("Dropped data", "short", SOME),
            "Log lines, spans, samples and alerts dropped per second over 5 minutes.",
            " + ".join(f"({expr})" for expr in _drops("[5m]").values()),
        ),
        (
            ("Failed reloads", "none", NONE),
            "Engines that rejected their newest config and keep the previous one.",
            'count({__name__=~".+_config_last_reload_successful"} == 0 or '
            'increase({__name__=~".+_config_reload_fail_total"}[1h]) > 0) or vector(0)',
        ),
        (
            ("Failing rules", "none", NONE),
            "Failed rule evaluations in the last 15 minutes.",
            "sum(increase(prometheus_rule_evaluation_failures_total[15m])) or vector(0)",
        ),
        panels.days_until_full(DISKS),
        (
            ("Ingestion delay", "s", DELAY),
            "Seconds until a new sample, log line or span can be queried; the slowest of the three.",
            f"max({' or '.join(_delays('[5m]').values())})",
        ),
    )


def _delays(window: str) -> dict[str, str]:
    """Seconds until an event can be queried.

    Metrics: since the newest sample of the target that was scraped longest ago. Lines: from their time stamp to their
    arrival in Loki, by its pushes. Spans: in their app's queue, and half a second of batching in the collector.
    Waiting is length by throughput: https://en.wikipedia.org/wiki/Little%27s_law
    """
    pushes = f'sum(rate(loki_request_duration_seconds_count{{route="loki_api_v1_push"}}{window}))'
    exported = f"sum(rate(vantage_spans_exported_total{window}))"
    delays = {
        "metrics": "max(time() - timestamp(up))",
        "lines": f"sum(rate(loki_distributor_lag_ms_total{window})) / 1000 / ({pushes} > 0)",
        "spans": f"0.5 + sum(avg_over_time(vantage_span_queue_length{window})) / ({exported} > 0)",
    }
    return {name: f'label_replace({expr}, "kind", "{name}", "", "")' for name, expr in delays.items()}


def _arrival() -> Panels:
    yield panels.states(
        "Targets",
        "Scrape result of each target: green is up, red is down.",
        Options(width=24, height=8, steps=((None, "red"), (1, "green"))),
        over_time(
            'min by (job, instance) (up{service_name=~"$service", instance=~"$instance"})', "{{job}} {{instance}}"
        ),
    )
    for name, words, metric in (
        ("samples", "Samples per second stored by Prometheus.", "prometheus_tsdb_head_samples_appended_total"),
        ("lines", "Log lines per second accepted by Loki.", "loki_distributor_lines_received_total"),
        ("spans", "Spans per second accepted by Jaeger.", "otelcol_receiver_accepted_spans_total"),
    ):
        title = "Log lines ingested" if name == "lines" else f"{name.capitalize()} ingested"
        options = Options(width=6, height=7, unit="cps", minimum=0)
        yield graph(title, words, options, {name: f"sum(rate({metric}{INTERVAL}))"})
    yield graph(
        "Dropped data over time",
        "Data dropped per second, by component. Anything above 0 is missing from the dashboards.",
        Options(width=6, height=7, unit="cps", minimum=0, steps=SOME, calcs=("max",)),
        _drops(INTERVAL),
    )


def _checks() -> Panels:
    """The request that verify sends each minute, and the readiness of each service."""
    yield panels.states(
        "Hops of a request",
        "Whether the request that is sent each minute was found at each hop: green is found, red is not found in time, "
        "a gap is a check without a result.",
        Options(width=8, steps=((None, "red"), (1, "green"))),
        over_time("min by (hop) (vantage_verify_hop_success)", "{{hop}}"),
    )
    yield graph(
        "Seconds to each hop",
        "Seconds from the request of each minute until it was found. The hop metric waits for the next scrape.",
        Options(width=8, unit="s", minimum=0),
        {"{{hop}}": "max by (hop) (vantage_verify_hop_seconds)"},
    )
    yield panels.states(
        "Ready services",
        "Whether each service answered at its readiness URL, asked each minute on its own host: green is ready, red is "
        "not ready or no answer.",
        Options(width=8, steps=((None, "red"), (1, "green"))),
        # The unit's name would be cut.
        over_time(
            'label_replace(min by (name, host) (vantage_service_ready), "service", "$1", "name", "vantage-(.+).service")',
            "{{service}} {{host}}",
        ),
    )


def _room() -> Panels:
    yield graph(
        "Ingestion delay by signal",
        "Seconds until an event can be queried: age of the oldest scrape, mean lag of log lines, and the time a span "
        "waits to be sent and stored.",
        Options(width=8, unit="s", minimum=0, steps=DELAY),
        _delays(INTERVAL),
    )
    yield graph(
        "Storage size",
        "Bytes on disk of each store, measured by the check of each minute. Without it, as under Docker Compose, only "
        "Prometheus reports a size.",
        Options(width=8, unit="bytes", minimum=0, calcs=LAST),
        {
            "{{name}}": 'sum by (name) (vantage_data_bytes{name=~"prometheus|loki|jaeger"}) or '
            "label_replace(sum(prometheus_tsdb_storage_blocks_bytes + prometheus_tsdb_wal_storage_size_bytes + "
            'prometheus_tsdb_head_chunks_storage_size_bytes), "name", "prometheus", "", "")',
        },
    )
    columns = {
        "service_name": "Store",
        "Value #A": "Retention",
        "Value #B": "Oldest sample",
        "Value #C": "Size limit",
    }
    steps = [transform("labelsToFields"), *panels.joined(columns)]
    cells = [
        named(name, **figure(unit))
        for name, unit in (("Retention", "s"), ("Oldest sample", "s"), ("Size limit", "bytes"))
    ]
    yield listing(
        "Retention",
        "Retention of Prometheus and the age of its oldest sample. The retention of Jaeger and Loki is set in their "
        "roles.",
        Options(width=8, empty="Prometheus does not scrape itself", transformations=steps, overrides=cells),
        "max by (service_name) (prometheus_tsdb_retention_limit_seconds)",
        "max by (service_name) (time() - prometheus_tsdb_lowest_timestamp_seconds)",
        "max by (service_name) (prometheus_tsdb_retention_limit_bytes)",
    )


def _mean(metric: str) -> str:
    return f"sum(rate({metric}_sum{INTERVAL})) / (sum(rate({metric}_count{INTERVAL})) > 0)"


def _p95(metric: str) -> str:
    return f"histogram_quantile(0.95, sum by (le) (rate({metric}{INTERVAL})))"


def _engines() -> Panels:
    yield graph(
        "Engine latency",
        "p95 latency of Loki's queries and Prometheus' HTTP API, mean latency of Jaeger's storage.",
        Options(width=8, unit="s", minimum=0),
        {
            "Loki queries, p95": _p95('loki_request_duration_seconds_bucket{route=~"loki_api_v1_query.*"}'),
            "Prometheus queries, p95": _p95(
                'prometheus_http_request_duration_seconds_bucket{handler=~"/api/v1/query.*"}'
            ),
            # Its buckets have bounds in milliseconds for values in seconds, so that every quantile is 4.75 s.
            "Jaeger storage, mean": _mean("jaeger_storage_latency_seconds"),
        },
    )
    yield graph(
        "Series and streams",
        "Series and streams in memory. A steep rise means a label with too many values.",
        Options(width=8, unit="locale", decimals=0, minimum=0, calcs=LAST),
        {
            "Prometheus series": "sum(prometheus_tsdb_head_series)",
            "Loki streams": "sum(loki_ingester_memory_streams)",
        },
    )
    columns = {"service_name": "Service", "version": "Version", "instance": "Instance"}
    steps = [
        transform("filterFieldsByName", include={"names": list(columns)}),
        panels.organize(columns),
    ]
    empty = "No process reports its version"
    yield listing(
        "Versions",
        "Versions as reported by each process.",
        Options(width=8, empty=empty, transformations=steps, sort="Service", descending=False),
        # By convention the name is <program>_build_info; OpenTelemetry's is target_info.
        'group by (service_name, version, instance) ({__name__=~".+_build_info", __name__!~"(go|grafana_plugin)_'
        'build_info"} or label_replace(target_info{service_name="jaeger"}, "version", "$1", '
        '"service.version", "v?(.+)"))',
    )
