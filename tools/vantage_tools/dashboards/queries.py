"""Queries to the three stores. Data sources are named by dashboard variables, never by a uid."""

from __future__ import annotations

from grafana_foundation_sdk.builders import loki, prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.loki import LokiQueryDirection
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${prometheus}")
LOKI = DataSourceRef(type_val="loki", uid="${loki}")
JAEGER = DataSourceRef(type_val="jaeger", uid="${jaeger}")
MIXED = DataSourceRef(type_val="datasource", uid="-- Mixed --")
# File systems that data can fill: not those in memory, not the boot loader's.
DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs|vfat", mountpoint!~"/boot.*"'


def _promql(expr: str, legend: str, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(PROMETHEUS).ref_id(ref).expr(expr).legend_format(legend)


def over_time(expr: str, legend: str, ref: str = "A") -> prometheus.Dataquery:
    """A PromQL query for each point of the time range."""
    return _promql(expr, legend, ref).range()


def buckets(expr: str) -> prometheus.Dataquery:
    """A PromQL query for a heatmap: one series per bucket, with exemplars."""
    return over_time(expr, "{{le}}").format(PromQueryFormat.HEATMAP).exemplar(True)


def now(expr: str, legend: str = "__auto", ref: str = "A") -> prometheus.Dataquery:
    """A PromQL query for the end of the time range only."""
    return _promql(expr, legend, ref).instant()


def rows(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """A PromQL query for a table: one row per series, as it is at the end of the time range."""
    return now(expr, ref=ref).format(PromQueryFormat.TABLE)


def lines(expr: str, limit: int) -> loki.Dataquery:
    """A LogQL query that returns lines, the newest `limit` of them."""
    query = loki.Dataquery().datasource(LOKI).ref_id("A").expr(expr).max_lines(limit)
    return query.query_type("range").direction(LokiQueryDirection.BACKWARD)


def counted(expr: str, legend: str, query_type: str = "range") -> loki.Dataquery:
    """A LogQL query that counts lines for each point of the time range, or once for its end (`instant`)."""
    return loki.Dataquery().datasource(LOKI).ref_id("A").expr(expr).query_type(query_type).legend_format(legend)


class JaegerQuery(Dataquery, Builder[Dataquery]):
    """What Grafana's Jaeger data source takes; the SDK has no model of it."""

    def __init__(self, query_type: str, ref: str = "A", **fields: str | int) -> None:
        self._fields = {"queryType": query_type, "refId": ref, "datasource": JAEGER, **fields}

    def build(self) -> Dataquery:
        return self

    def to_json(self) -> dict[str, object]:
        return dict(self._fields)


def traces(service: str, limit: int, **conditions: str) -> JaegerQuery:
    """A search for traces of a service; `minDuration`, `maxDuration`, `operation`, `tags` narrow it."""
    return JaegerQuery("search", service=service, limit=limit, **conditions)
