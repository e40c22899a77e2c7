"""The rules: each compares the short time range with the time before and yields findings."""

from __future__ import annotations

from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, explore, ordered
from vantage_tools.report.rules import history, logs, requests, stack, traces

# In this order: a rule can leave out what a rule before it reported.
RULES = (
    *(stack.silent_engines, stack.targets_down, stack.restarts),
    *(requests.errors, requests.refusals, requests.latency, requests.surges, requests.error_budgets),
    *(traces.repeated, traces.slow_databases, traces.unanswered_calls, logs.new_errors, logs.one_client),
    *(stack.lost_spans, stack.lost_lines, stack.memory, stack.disks, stack.alerts, history.episodes),
)


def detect(dataset: Dataset) -> list[Finding]:
    """Return all findings, the most important first, with links to Grafana."""
    found: list[Finding] = []
    for rule in RULES:
        found += list(rule(dataset, tuple(found)))
    for finding in found:
        finding.link = explore(dataset, finding.engine, finding.query)
    return ordered(found)
