"""Grafana dashboards as code; `make dashboards` writes what roles/grafana/files/dashboards/ keeps."""
