"""One request is found in every store."""

from __future__ import annotations

import json
import time

from machine import Machine, refused, succeeded, wait


def test_one_request_is_found_as_log_trace_metric_and_exemplar(playbook) -> None:
    output = succeeded(playbook("playbooks/verify.yml"))
    for hop in ("app", "log", "trace", "metric", "exemplar"):
        assert f"{hop:<12}" in output, output


def test_a_broken_hop_is_named(vm: Machine, playbook) -> None:
    vm.sh("systemctl stop vantage-jaeger")
    try:
        refused(playbook("playbooks/verify.yml", verify_seconds=4), "'trace'", "vantage-jaeger.service")
    finally:
        vm.sh("systemctl start vantage-jaeger")


def test_log_line_is_found_by_trace_id_with_its_fields(vm: Machine) -> None:
    trace_id = vm.trace_id()
    query = f'{{service_name="warehouse"}} | trace_id = `{trace_id}` | json | http_response_status_code = 200'
    wait(lambda: vm.log_lines(query, since=time.time() - 60), 10, vm.status)


def test_error_is_logged_with_its_traceback_as_one_line(vm: Machine) -> None:
    begin = time.time()
    with vm.faults(error_rate=1):
        answer = vm.sh("curl -sS --max-time 10 -D - http://127.0.0.1:8001/products")
    head, body = answer.replace("\r", "").split("\n\n", 1)
    assert " 500 " in head.splitlines()[0], answer
    assert "Traceback" not in body
    trace_id = json.loads(body)["trace_id"]

    query = f'{{service_name="warehouse"}} | trace_id = `{trace_id}`'
    # Lines of a service arrive in order: a second line of the error would be there before one of a later request.
    later = f'{{service_name="warehouse"}} | trace_id = `{vm.trace_id()}`'
    wait(lambda: vm.log_lines(later, begin - 60), 10, vm.explain)
    lines = [line for _, line in vm.log_lines(query, begin - 60)]
    assert len(lines) == 1, lines
    fields = json.loads(lines[0])
    assert fields["level"] == "error"
    assert fields["http_response_status_code"] == 500
    assert fields["exception_type"] == "shop.faults.InjectedFault"
    stack = fields["exception_stacktrace"].splitlines()
    assert stack[0] == "Traceback (most recent call last):"
    assert any('faults.py", line ' in line for line in stack), stack
    assert "InjectedFault" in stack[-1], stack


def test_invalid_request_answers_4xx_without_a_traceback(vm: Machine) -> None:
    answer = vm.sh(
        "curl -sS -w '\\n%{http_code}' -X POST -H 'Content-Type: application/json' -d '{' http://127.0.0.1:8000/orders"
    )
    body, status = answer.rsplit("\n", 1)
    assert status.startswith("4"), answer
    assert json.loads(body)["status"] == int(status)
    assert "Traceback" not in body


def test_trace_joins_both_services(vm: Machine) -> None:
    trace_id = vm.trace_id()
    wait(
        lambda: (
            {p["serviceName"] for p in vm.trace(trace_id).get("processes", {}).values()} >= {"storefront", "warehouse"}
        ),
        10,
    )


def test_span_metrics_reach_prometheus(vm: Machine) -> None:
    sent = vm.now()
    vm.trace_id()
    calls = 'traces_span_metrics_calls_total{service_name="warehouse"}'
    # Not what was scraped before the machine was last restarted.
    wait(lambda: vm.instant(f"sum({calls} and timestamp({calls}) > {sent}) > 0"), 60)


def test_states_of_units_are_scraped(vm: Machine) -> None:
    now = vm.now()
    state = 'node_systemd_unit_state{name="vantage-loki.service",state="active"}'
    wait(lambda: vm.instant(f"{state} == 1 and timestamp({state}) > {now}"), 60)
