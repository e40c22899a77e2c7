"""Grafana dashboards as code; `make render` writes what roles/grafana/files/dashboards/ keeps.

Each dashboard is one module: `service_overview`, `logs`, `traces`, `slo`, `host`, `observability`. They share `board`
(the frame: variables, annotations, time range), `panels`, `queries` and `links`. `render` turns them into files.
"""
