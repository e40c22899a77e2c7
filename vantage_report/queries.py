"""The queries, in one place: what is shown as the proof of a sentence is what was asked.

PromQL over raw counters, so that a report needs no recording rule but those of the SLOs and limits.
"""

from __future__ import annotations

REQUESTS = "http_server_request_duration_seconds_count"
BUCKETS = "http_server_request_duration_seconds_bucket"
ROUTE = "service_name, http_request_method, http_route"
SPAN_CALLS = "traces_span_metrics_calls_total"
SPAN_TIME = "traces_span_metrics_duration_milliseconds"
TO_SERVICE = 'span_kind="SPAN_KIND_CLIENT", server_address!=""'

# An increase does not count the first value of a series that began within the window, as the first error of a status
# does. What was not there in the hour before is counted from zero, unless a restart has made it smaller than what it grew by.
_BORN = "({metric} unless last_over_time({metric}[1h] offset {window}))"
_GROWN = "increase({metric}[{window}])"
_COUNTED = f"sum by ({{by}}) ({_BORN} > {_GROWN} or {_GROWN} or {_BORN})"


def counted(metric: str, by: str, window: int) -> str:
    """How much a counter grew in the window of so many seconds that ends now."""
    return _COUNTED.format(metric=metric, by=by, window=f"{window}s")


def over_window(window: int) -> dict[str, str]:
    """What is asked of Prometheus at the end of a window, by name."""
    span = f"{window}s"
    return {
        "requests": counted(REQUESTS, f"{ROUTE}, http_response_status_code", window),
        "buckets": counted(BUCKETS, f"{ROUTE}, le", window),
        "calls": counted(f"{SPAN_CALLS}{{{TO_SERVICE}}}", "service_name, server_address, status_code", window),
        "call_ms": counted(f"{SPAN_TIME}_sum{{{TO_SERVICE}}}", "service_name, server_address", window),
        "starts": f"max by (service_name, instance) (changes(process_start_time_seconds[{span}]))",
        "auto_restarts": f'sum by (name) (increase(node_systemd_service_restart_total{{name=~"vantage-.+"}}[{span}])) > 0',
        "spans_dropped": f"sum by (service_name, reason) (increase(vantage_spans_dropped_total[{span}])) > 0",
        "jaeger_refused": (
            f"sum (increase(otelcol_exporter_send_failed_spans_total[{span}])) > 0 "
            f"or sum (increase(otelcol_receiver_refused_spans_total[{span}])) > 0"
        ),
        "lines_dropped": (
            f"sum by (service_name, reason) (increase(promtail_dropped_entries_total[{span}])) > 0 "
            f"or sum by (service_name, reason) (increase(loki_discarded_samples_total[{span}])) > 0 "
            f"or sum by (service_name) (increase(vantage_log_lines_dropped_total[{span}])) > 0"
        ),
        "up_share": f"avg by (service_name, job, instance) (avg_over_time(up[{span}]))",
    }


def at_end(short: int, long: int) -> dict[str, str]:
    """What is asked once, for now."""
    memory = "process_resident_memory_bytes / on (service_name) group_left () service_name:memory_limit:bytes"
    return {
        "up": "up",
        "last_up": f"max by (service_name, job, instance) (max_over_time((timestamp(up) and up == 1)[{long}s:15s]))",
        "first_seen": f"min by (service_name) (min_over_time(timestamp(up)[{long}s:60s]))",
        "first_request": f"min by (service_name) (min_over_time(timestamp({REQUESTS})[{long}s:60s]))",
        "memory": f"max by (service_name) (max_over_time(({memory})[{short}s:15s]))",
        "disk_free": (
            'min by (device) (node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs"} / node_filesystem_size_bytes '
            "and node_filesystem_readonly == 0)"
        ),
        "slo": '{__name__=~"service_name:slo_.+"}',
        "slo_days": "vantage:slo_window:days",
    }


def oldest(window: int) -> str:
    """When the first scrape of the window was."""
    return f"min(min_over_time(timestamp(up)[{window}s:60s]))"


def over_time(rate: int) -> dict[str, str]:
    """What is asked for each point of a plot; rates are over so many seconds."""
    by_service = f"sum by (service_name) (rate({REQUESTS}[{rate}s]))"
    of_status = 'sum by (service_name) (rate({}{{http_response_status_code=~"{}.."}}[{}s]))'
    found = {
        "rate": by_service,
        "failed": of_status.format(REQUESTS, 5, rate),
        "refused": of_status.format(REQUESTS, 4, rate),
    }
    for quantile in (50, 95, 99):
        found[f"p{quantile}"] = (
            f"histogram_quantile({quantile / 100}, sum by (service_name, le) (rate({BUCKETS}[{rate}s])))"
        )
    return found


# LogQL. What a pattern is: the exception, or the message without what differs from line to line.
SAID = (
    "{{if .exception_type}}{{.exception_type}}: {{.exception_message}}{{else if .message}}{{.message}}"
    '{{else if .msg}}{{.msg}}{{else}}{{ regexReplaceAll "^.*?msg=" __line__ "" }}{{end}}'
)
MASKED = '{{ regexReplaceAll "[0-9a-fA-F]{8,}|[0-9]+" .said "#" | trunc 200 }}'
_PATTERN = (
    "{selector} | json | drop __error__, __error_details__ | label_format said=`{said}` | label_format said=`{masked}`"
)
TROUBLE = '{level=~"error|critical|fatal|warn|warning"}'


def pattern_lines(selector: str = TROUBLE) -> str:
    """Lines above info, with the label `said`."""
    return _PATTERN.format(selector=selector, said=SAID, masked=MASKED)


def patterns(window: int) -> str:
    """The patterns of a window and how often each was said."""
    return f"topk(40, sum by (service_name, level, said) (count_over_time({pattern_lines()} [{window}s])))"


def pattern_examples(service: str, level: str, said: str) -> str:
    """The lines of one pattern."""
    selector = f'{{service_name="{service}", level="{level}"}}'
    return f"{pattern_lines(selector)} | said = {_quoted(said)}"


def volume(window: int) -> str:
    """Lines of a window by service and level."""
    return f'sum by (service_name, level) (count_over_time({{service_name=~".+"}} [{window}s]))'


def clients(services: list[str], window: int) -> str:
    """Who sent the requests of a window."""
    fields = 'client_address="client_address"'
    return (
        f"topk(20, sum by (service_name, client_address) (count_over_time({of_services(services)} | json {fields} "
        f'| client_address != "" [{window}s])))'
    )


def of_services(services: list[str]) -> str:
    """The streams of some services."""
    return f'{{service_name=~"{"|".join(services)}"}}'


def _quoted(text: str) -> str:
    # Backticks need no escape, but cannot hold a backtick.
    if "`" not in text:
        return f"`{text}`"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
