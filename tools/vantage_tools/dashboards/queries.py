"""Queries to the three stores. Data sources are named by dashboard variables, never by a uid."""

from __future__ import annotations

from grafana_foundation_sdk.builders import loki, prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import loki as loki_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models.dashboard import DataSourceRef

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${prometheus}")
LOKI = DataSourceRef(type_val="loki", uid="${loki}")
JAEGER = DataSourceRef(type_val="jaeger", uid="${jaeger}")
# File systems that data can fill: not those in memory, not the boot loader's.
DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs|vfat", mountpoint!~"/boot.*"'
MIXED = DataSourceRef(type_val="datasource", uid="-- Mixed --")


def over_time(expr: str, legend: str = "", ref: str = "A", *, exemplars: bool = False) -> prometheus.Dataquery:
    """A PromQL query for each point of the time range."""
    query = prometheus.Dataquery().datasource(PROMETHEUS).ref_id(ref).expr(expr).range()
    query.legend_format(legend or "__auto")
    return query.exemplar(True) if exemplars else query


def buckets(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """A PromQL query for a heatmap: one series per bucket, with exemplars."""
    query = prometheus.Dataquery().datasource(PROMETHEUS).ref_id(ref).expr(expr).range()
    return query.format(prometheus_models.PromQueryFormat.HEATMAP).legend_format("{{le}}").exemplar(True)


def now(expr: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    """A PromQL query for the end of the time range only."""
    query = prometheus.Dataquery().datasource(PROMETHEUS).ref_id(ref).expr(expr).instant()
    return query.legend_format(legend or "__auto")


def rows(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """A PromQL query for a table: one row per series, as it is at the end of the time range."""
    return now(expr, ref=ref).format(prometheus_models.PromQueryFormat.TABLE)


def lines(expr: str, limit: int, ref: str = "A") -> loki.Dataquery:
    """A LogQL query that returns lines, the newest `limit` of them."""
    query = loki.Dataquery().datasource(LOKI).ref_id(ref).expr(expr).max_lines(limit)
    return query.query_type("range").direction(loki_models.LokiQueryDirection.BACKWARD)


def counted(expr: str, legend: str = "", ref: str = "A") -> loki.Dataquery:
    """A LogQL query that counts lines for each point of the time range."""
    query = loki.Dataquery().datasource(LOKI).ref_id(ref).expr(expr).query_type("range")
    return query.legend_format(legend)


def counted_now(expr: str, legend: str = "", ref: str = "A") -> loki.Dataquery:
    """A LogQL query that counts lines once, for the end of the time range."""
    query = loki.Dataquery().datasource(LOKI).ref_id(ref).expr(expr).query_type("instant")
    return query.legend_format(legend)


class JaegerQuery(Dataquery, Builder[Dataquery]):
    """What Grafana's Jaeger data source takes; the SDK has no model of it."""

    def __init__(self, query_type: str, ref: str = "A", **fields: str | int) -> None:
        self._fields = {"queryType": query_type, "refId": ref, "datasource": JAEGER, **fields}

    def build(self) -> Dataquery:
        return self

    def to_json(self) -> dict[str, object]:
        return dict(self._fields)


def traces(service: str, limit: int, ref: str = "A", **conditions: str) -> JaegerQuery:
    """A search for traces of a service; `minDuration`, `maxDuration`, `operation`, `tags` narrow it."""
    return JaegerQuery("search", ref, service=service, limit=limit, **conditions)


def callers(ref: str = "A") -> JaegerQuery:
    """A query for the service graph, counted from the traces of the time range."""
    return JaegerQuery("dependencyGraph", ref)
