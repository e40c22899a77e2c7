"""Recording rules and alerts, by promtool of the image that will run them. The cases are in tests/rules/."""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import programs
import pytest
import yaml
from ansible.errors import AnsibleError
from rendering import ROLES, ROOT, Host, load_plugins

load_plugins()  # the alerts are read while the tests are collected
RULES = ROLES / "prometheus/templates/rules.yml.j2"
CASES = sorted((ROOT / "tests/rules").glob("*.yml"))
RUNBOOKS = ROOT / "docs/runbooks.md"


# An app that Prometheus does not scrape, beside the demo shop.
BLOG = {"name": "blog", "image": "blog:1", "port": 8002, "metrics": False}


def render(**given: Any) -> str:
    host = Host("prometheus", **given)
    shop = host.value(host.variables["vantage_apps"])
    return Host("prometheus", **{"vantage_apps": [*shop, BLOG], **given}).render(RULES)


@functools.cache
def cases() -> list[dict[str, Any]]:
    """The tests of every file of tests/rules/."""
    return [test for case in CASES for test in yaml.safe_load(case.read_text(encoding="utf-8"))["tests"]]


@functools.cache
def rules(**given: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(render(**given))["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def program() -> Path:
    return programs.find("prometheus", "promtool")


@pytest.fixture
def run(program: Path, tmp_path: Path):
    def call(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        (tmp_path / "rules.yml").write_text(render() if text is None else text, encoding="utf-8")
        return subprocess.run([program, *arguments], check=False, capture_output=True, text=True, cwd=tmp_path)

    return call


def test_rules_are_accepted(run) -> None:
    result = run("check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_rules_do_what_their_cases_say(run, case: Path, tmp_path: Path) -> None:
    shutil.copy(case, tmp_path)
    # The cases need not repeat the runbooks.
    text = re.sub(r'^( +runbook:) ".*"$', r"\1 what to do", render(), flags=re.MULTILINE)
    result = run("test", "rules", case.name, text=text)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_wrong_rule_fails_its_cases(run, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/rules/observers.yml", tmp_path)
    one = "--run=^a target is down for longer"
    result = run("test", "rules", one, "observers.yml", text=render().replace("expr: up == 0", "expr: up == 2"))
    assert result.returncode != 0
    assert "TargetDown" in result.stdout + result.stderr


def test_changed_settings_give_rules_that_are_accepted(run) -> None:
    text = render(
        prometheus_slos=[{"service": "storefront", "availability_percent": 99.95, "latency_seconds": 1}],
        prometheus_slo_days=7,
        prometheus_error_spike_percent=1,
        prometheus_extra_rule_groups=[{"name": "own", "rules": [{"alert": "Own", "expr": "vector(0) > 1"}]}],
    )
    result = run("check", "rules", "rules.yml", text=text)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'le="1.0"' in text
    assert "vector(0.9995)" in text
    assert "ratio5m > 0.01" in text
    assert "- alert: Own" in text


@pytest.mark.parametrize("alert", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
class TestEachAlert:
    def test_alert_has_a_case_that_fires_and_one_that_does_not(self, alert: dict[str, Any]) -> None:
        fires, silent = False, alert["alert"] == "Watchdog"  # silence is what it must not know
        for test in cases():
            for expected in test.get("alert_rule_test", []):
                if expected["alertname"] == alert["alert"]:
                    fires |= bool(expected["exp_alerts"])
                    silent |= not expected["exp_alerts"]
            for expected in test.get("promql_expr_test", []):
                named = f'alertname="{alert["alert"]}"'
                samples = str(expected["exp_samples"])
                fires |= named in samples and 'alertstate="firing"' in samples
                asked = re.search(r'ALERTS(?!_)(?:\{.*?alertname=~?"(.*?)")?', expected["expr"])
                silent |= bool(asked) and named not in samples and bool(re.fullmatch(asked[1] or ".*", alert["alert"]))
                if expected["expr"].startswith("count by") and named in expected["expr"]:
                    fires |= bool(expected["exp_samples"])
        assert fires, "no case in tests/rules in which it fires"
        assert silent, "no case in tests/rules in which it stays silent"

    def test_alert_has_severity_and_runbook(self, alert: dict[str, Any]) -> None:
        assert alert["labels"]["severity"] in {"critical", "warning", "none"}
        assert {"summary", "description", "runbook"} == set(alert["annotations"])
        assert "Do. " in alert["annotations"]["runbook"] or "do. " in alert["annotations"]["runbook"]

    def test_alert_links_to_its_runbook_if_a_url_is_set(self, alert: dict[str, Any]) -> None:
        address = "https://wiki.example.org/runbooks"
        (linked,) = [r for r in rules(prometheus_runbook_url=address) if r.get("alert") == alert["alert"]]
        assert linked["annotations"]["runbook_url"] == f"{address}#{alert['alert'].lower()}"
        assert linked["annotations"]["runbook"] == alert["annotations"]["runbook"]


def test_runbook_includes_the_runbook_it_refers_to() -> None:
    told = {rule["alert"]: rule["annotations"]["runbook"] for rule in rules() if "alert" in rule}
    assert "Roll back the last deployment" in told["SloAvailabilityFastBurn"]
    assert told["ErrorSpike"].endswith(f"SloAvailabilityFastBurn:\n\n{told['SloAvailabilityFastBurn']}")
    # Commands stay in lines of their own, and nothing of Markdown's emphasis is left.
    assert "\n\n    docker exec vantage-alertmanager amtool" in told["NotificationsFail"]
    assert not [text for text in told.values() if "**" in text]


def test_every_runbook_has_an_alert() -> None:
    headings = set(re.findall(r"^## (\w+)$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE))
    assert headings == {rule["alert"] for rule in rules() if "alert" in rule}


def test_memory_limits_follow_the_inventory() -> None:
    text = render(hostvars={"vm": {"loki_memory": "1g"}})
    found = {rule["labels"]["service_name"]: rule["expr"] for rule in yaml.safe_load(text)["groups"][-2]["rules"]}
    assert found["loki"] == "vector(1073741824)"
    assert found["storefront"] == "vector(268435456)"
    assert {"node-exporter", "prometheus", "grafana"} <= set(found)
    assert not {"flask-app", "container-service"} & set(found)


def test_buckets_of_spans_lines_and_requests_are_the_same() -> None:
    jaeger = Host("jaeger")
    config = jaeger.value(jaeger.variables["__jaeger_config"])
    units = {"us": 1e-6, "ms": 1e-3, "s": 1}
    written = config["connectors"]["spanmetrics"]["histogram"]["explicit"]["buckets"]
    of_spans = [float(n) * units[unit] for n, unit in (re.fullmatch(r"(\d+)(us|ms|s)", b).groups() for b in written)]
    source = ast.parse((ROOT / "app/src/flask_vantage/metrics.py").read_text(encoding="utf-8"))
    (of_requests,) = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DURATION_BUCKETS"
    ]
    assert of_spans == pytest.approx(list(of_requests))
    assert Host("prometheus").variables["__prometheus_span_buckets"] == list(of_requests)
    (of_lines,) = [
        stage["metrics"]["http_server_request_duration_seconds"]["config"]["buckets"]
        for stage in Host("promtail").variables["__promtail_access_stages"][0]["match"]["stages"]
        if "metrics" in stage
    ]
    assert of_lines == list(of_requests)


def test_what_promtail_counts_belongs_to_the_service_that_wrote_the_lines() -> None:
    host = Host("prometheus", hostvars={"vm": {}})
    config = yaml.safe_load(host.render(ROLES / "prometheus/templates/prometheus.yml.j2"))
    (promtail,) = [job for job in config["scrape_configs"] if job["job_name"] == "promtail"]
    (relabel,) = promtail["metric_relabel_configs"]
    assert relabel["source_labels"] == ["__name__", "exported_service_name"]
    assert relabel["target_label"] == "service_name"
    for metric in ("requests_total", "request_duration_seconds_bucket"):
        found = re.fullmatch(relabel["regex"], f"promtail_custom_http_server_{metric};blog")
        assert found
        assert found[1] == "blog"
    assert not re.fullmatch(relabel["regex"], "promtail_custom_http_server_requests_total;")
    assert not re.fullmatch(relabel["regex"], "promtail_read_lines_total;blog")


def test_app_that_is_not_scraped_may_have_objectives_of_its_own() -> None:
    text = render(prometheus_slos=[{"service": "blog", "availability_percent": 99.0}])
    assert 'vector(0.99) and on () service_name:http_server_requests:rate5m{service_name="blog"}' in text


def test_objectives_of_an_unknown_app_are_refused() -> None:
    with pytest.raises(AnsibleError, match=r"prometheus_slos.*storefrnt.*storefront"):
        render(prometheus_slos=[{"service": "storefrnt"}])


def test_an_objective_without_a_budget_is_refused() -> None:
    with pytest.raises(AnsibleError, match=r"availability_percent.*100"):
        render(prometheus_slo_availability_percent=100.0)


def test_a_budget_longer_than_the_retention_is_refused() -> None:
    with pytest.raises(AnsibleError, match=r"prometheus_slo_days.*30.*15d"):
        render(prometheus_slo_days=30)
    assert "[30d]" in render(prometheus_slo_days=30, prometheus_retention_time="90d")
