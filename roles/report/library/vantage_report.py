#!/usr/bin/python3
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = """
module: vantage_report
short_description: Writes a report of the last minutes and hours on the controller
description:
  - Asks Prometheus, Loki and Jaeger on the host through vantage_ask, in few round trips, and writes an HTML page, its pictures,
    a Markdown version and the findings as JSON into a folder of the controller. Nothing changes on the host. Check mode does nothing.
author: [Vantage]
options:
  prometheus:
    description: Address on the host.
    type: str
    required: true
  loki:
    description: Address on the host.
    type: str
    required: true
  jaeger:
    description: Address on the host.
    type: str
    required: true
  grafana:
    description: Address that people type, for links; empty for none.
    type: str
    default: ""
  short:
    description: The window that is looked at.
    type: str
    default: 5m
  long:
    description: The window it is compared with.
    type: str
    default: 6h
  dir:
    description: Folder on the controller, relative to the project's root.
    type: str
    required: true
  keep_data:
    description: Leaves data.json.gz in the folder.
    type: bool
    default: false
"""

EXAMPLES = """
- name: Write the report
  vantage_report:
    prometheus: http://127.0.0.1:9090
    loki: http://127.0.0.1:3100
    jaeger: http://127.0.0.1:16686
    dir: report
"""

RETURN = """
report:
  description: Path of the HTML page.
  type: str
  returned: success
findings:
  description: What was found, as in findings.json.
  type: list
  returned: success
"""
