"""Alertmanager's receivers from plain settings; secrets go to files, the config only names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

# Where container_service mounts it.
SECRETS = "/run/secrets"
SMTP_PASSWORD = "smtp_password"
# Settings of a receiver that are secrets: anyone with the address can post there.
SECRET_SETTINGS = ("webhook_url", "slack_url", "pagerduty_key")

# Alertmanager's own templates, one paragraph for each alert of a group.
TITLE = "{{ .Status | toUpper }}: {{ .CommonLabels.alertname }} {{ .CommonLabels.service_name }}"
TEXT = (
    "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.description }}\n"
    "{{ with .Annotations.runbook }}{{ . }}\n{{ end }}{{ with .Annotations.runbook_url }}{{ . }}\n{{ end }}{{ end }}"
)


def secret_name(receiver: Mapping[str, Any], setting: str) -> str:
    """The file of one secret; a receiver's name is its first part, so it is held to what a file name may have."""
    name = str(receiver["name"])
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise AnsibleFilterError(
            f"The receiver {name!r} cannot be called so: letters, digits, - and _ only, as it names files."
        )
    return f"{name}_{setting}"


def alertmanager_secrets(receivers: Iterable[Mapping[str, Any]], smtp_password: str) -> dict[str, str]:
    """Every secret by the name of its file."""
    contents = {
        secret_name(receiver, setting): str(receiver[setting])
        for receiver in receivers
        for setting in SECRET_SETTINGS
        if receiver.get(setting)
    }
    if smtp_password:
        contents[SMTP_PASSWORD] = smtp_password
    return contents


def ways(receiver: Mapping[str, Any], smtp_host: str) -> dict[str, Any]:
    """How one receiver is reached: webhook_configs, email_configs, slack_configs, pagerduty_configs."""
    common = {"send_resolved": receiver.get("send_resolved") is not False}
    paths = {setting: f"{SECRETS}/{secret_name(receiver, setting)}" for setting in SECRET_SETTINGS}
    found: dict[str, Any] = {}
    if receiver.get("webhook_url"):
        found["webhook_configs"] = [common | {"url_file": paths["webhook_url"]}]
    if receiver.get("email_to"):
        if not smtp_host:
            raise AnsibleFilterError(
                f"The receiver {receiver['name']} gets e-mail, but alertmanager_smtp_host is empty: "
                "name the mail server, as host:port."
            )
        found["email_configs"] = [common | {"to": str(receiver["email_to"]), "headers": {"Subject": TITLE}}]
    if receiver.get("slack_url"):
        slack = common | {"api_url_file": paths["slack_url"], "title": TITLE, "text": TEXT}
        if receiver.get("slack_channel"):
            slack["channel"] = str(receiver["slack_channel"])
        found["slack_configs"] = [slack]
    if receiver.get("pagerduty_key"):
        key = {"routing_key_file": paths["pagerduty_key"], "description": TITLE}
        # PagerDuty knows four words of its own; ours are among them.
        labels = {"severity": "{{ or .CommonLabels.severity `critical` }}", "class": "{{ .CommonLabels.alertname }}"}
        found["pagerduty_configs"] = [common | key | labels]
    return found


def alertmanager_receivers(receivers: Iterable[Mapping[str, Any]], smtp_host: str) -> list[dict[str, Any]]:
    """`receivers` of the config, after `nobody`, which discards notifications.

    Raises AnsibleFilterError for a receiver without a way to reach it, a duplicate name, and e-mail without a server.
    """
    found: list[dict[str, Any]] = [{"name": "nobody"}]
    for receiver in receivers:
        name = str(receiver["name"])
        if name in {other["name"] for other in found}:
            raise AnsibleFilterError(f"duplicate receiver name: {name} (nobody is reserved). Rename one.")
        reached = ways(receiver, smtp_host)
        if not reached:
            raise AnsibleFilterError(
                f"receiver {name}: no destination. Set webhook_url, email_to, slack_url or pagerduty_key."
            )
        found.append({"name": name} | reached)
    return found


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"alertmanager_secrets": alertmanager_secrets, "alertmanager_receivers": alertmanager_receivers}
