"""The rules that look for what is wrong. Each compares the short window with the rest of the long one."""

from __future__ import annotations

from vantage_report.analyse import Facts
from vantage_report.detectors import history, logs, requests, stack, traces
from vantage_report.findings import Finding, ordered
from vantage_report.links import Grafana

# In this order: a later one may leave out what an earlier one has said.
RULES = (
    stack.silent_engines,
    stack.targets_down,
    stack.restarts,
    requests.errors,
    requests.refusals,
    requests.latency,
    requests.surges,
    requests.burning,
    traces.repeated,
    traces.slow_databases,
    traces.timeouts,
    logs.new_errors,
    logs.one_client,
    stack.lost_signals,
    stack.memory,
    stack.disks,
    stack.alerts,
    history.episodes,
)


def detect(facts: Facts) -> list[Finding]:
    """All findings, the most important first, with links into Grafana."""
    found: list[Finding] = []
    for rule in RULES:
        found += list(rule(facts, tuple(found)))
    grafana = Grafana.of(facts)
    for finding in found:
        finding.link = grafana.explore(finding.proof, facts)
    return ordered(found)
