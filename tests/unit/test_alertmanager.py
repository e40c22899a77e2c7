"""Receivers, routes and secrets of Alertmanager, checked by amtool of the image that will run them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import programs
import pytest
import yaml
from ansible.errors import AnsibleError
from rendering import ROLES, Host, files

TEMPLATE = ROLES / "alertmanager/templates/alertmanager.yml.j2"
SECRETS = {"webhook_url": "https://hook/s3cret-a", "slack_url": "https://slack/s3cret-b", "pagerduty_key": "s3cret-c"}
EVERYTHING: dict[str, Any] = {
    "alertmanager_receivers": [
        {"name": "hook", "webhook_url": SECRETS["webhook_url"], "send_resolved": False},
        {"name": "mail", "email_to": "ops@example.org"},
        {"name": "team", "slack_url": SECRETS["slack_url"], "slack_channel": "#ops"},
        {"name": "night", "pagerduty_key": SECRETS["pagerduty_key"]},
    ],
    "alertmanager_receiver": "team",
    "alertmanager_routes": [{"receiver": "night", "matchers": ['severity="critical"']}],
    "alertmanager_watchdog_receiver": "hook",
    "alertmanager_smtp_host": "mail.example.org:587",
    "alertmanager_smtp_username": "vantage",
    "alertmanager_smtp_password": "s3cret-d",
}


def config(**given: Any) -> dict[str, Any]:
    return dict(yaml.safe_load(Host("alertmanager", **given).render(TEMPLATE)))


@pytest.fixture(scope="module")
def amtool() -> Path:
    return programs.find("alertmanager", "amtool")


def written(tmp_path: Path, **given: Any) -> Path:
    path = tmp_path / "alertmanager.yml"
    path.write_text(Host("alertmanager", **given).render(TEMPLATE), encoding="utf-8")
    return path


@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_config_is_accepted_though_no_secret_file_is_there(amtool: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    result = subprocess.run(
        [amtool, "check-config", written(tmp_path, **given)], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=Watchdog", "severity=none"], "hook"),
        (["alertname=TargetDown", "severity=critical"], "night"),
        (["alertname=TimeSkew", "severity=warning"], "team"),
    ],
)
def test_alerts_reach_their_receivers(amtool: Path, tmp_path: Path, labels: list[str], receiver: str) -> None:
    path = written(tmp_path, **EVERYTHING)
    result = subprocess.run(
        [amtool, "config", "routes", "test", f"--config.file={path}", *labels],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert result.stdout.split() == [receiver], result.stdout + result.stderr


def test_config_holds_no_secret_and_every_secret_has_its_file() -> None:
    text = Host("alertmanager", **EVERYTHING).render(TEMPLATE)
    entries = [file for file in files("alertmanager", **EVERYTHING) if "content" in file and file.get("secret")]
    assert {entry["mode"] for entry in entries} == {"0440"}
    contents = {Path(entry["path"]).name: entry["content"] for entry in entries}
    assert "s3cret" not in text
    assert contents == {
        "hook_webhook_url": SECRETS["webhook_url"],
        "team_slack_url": SECRETS["slack_url"],
        "night_pagerduty_key": SECRETS["pagerduty_key"],
        "smtp_password": "s3cret-d",
    }
    for name in contents:
        assert f"/run/secrets/{name}" in text


def test_default_receiver_discards_every_notification() -> None:
    found = config()
    assert found["receivers"] == [{"name": "nobody"}]
    assert found["route"]["receiver"] == "nobody"


def test_engines_own_templates_arrive_as_they_are() -> None:
    slack = config(**EVERYTHING)["receivers"][3]["slack_configs"][0]
    assert slack["title"].startswith("{{ .Status")


@pytest.mark.parametrize(
    ("receiver", "reason"),
    [
        ({"name": "a"}, "no destination"),
        ({"name": "a b", "webhook_url": "http://x"}, "letters, digits"),
        ({"name": "nobody", "webhook_url": "http://x"}, "nobody is reserved"),
        ({"name": "a", "email_to": "a@b"}, "alertmanager_smtp_host is empty"),
    ],
)
def test_a_receiver_that_cannot_work_is_refused(receiver: dict[str, str], reason: str) -> None:
    with pytest.raises(AnsibleError, match=reason):
        config(alertmanager_receivers=[receiver])
