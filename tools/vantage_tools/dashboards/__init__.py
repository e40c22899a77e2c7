"""Grafana dashboards as code; `make render` writes what roles/grafana/files/dashboards/ keeps."""
