"""Alertmanager's receivers from plain settings; secrets go to files, the config only names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

# Settings of a receiver that are secrets (anyone with the address can post there), with the key that names the file.
SECRET_SETTINGS = {"webhook_url": "url_file", "slack_url": "api_url_file", "pagerduty_key": "routing_key_file"}

# Alertmanager's own templates, one paragraph for each alert of a group.
TITLE = "{{ .Status | toUpper }}: {{ .CommonLabels.alertname }} {{ .CommonLabels.service_name }}"
TEXT = (
    "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.description }}\n"
    "{{ with .Annotations.runbook }}{{ . }}\n{{ end }}{{ with .Annotations.runbook_url }}{{ . }}\n{{ end }}{{ end }}"
)
# What each kind of destination has, besides its address.
DESTINATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "webhook_url": ("webhook_configs", {}),
    "email_to": ("email_configs", {"headers": {"Subject": TITLE}}),
    "slack_url": ("slack_configs", {"title": TITLE, "text": TEXT}),
    # PagerDuty knows four severities; ours are among them.
    "pagerduty_key": (
        "pagerduty_configs",
        {
            "description": TITLE,
            "severity": "{{ or .CommonLabels.severity `critical` }}",
            "class": "{{ .CommonLabels.alertname }}",
        },
    ),
}


def alertmanager_secrets(receivers: Iterable[Mapping[str, Any]], smtp_password: str) -> dict[str, str]:
    """Return every secret by the name of its file."""
    contents = {
        f"{receiver['name']}_{setting}": str(receiver[setting])
        for receiver in receivers
        for setting in SECRET_SETTINGS
        if receiver.get(setting)
    }
    return contents | ({"smtp_password": smtp_password} if smtp_password else {})


def alertmanager_receivers(receivers: Iterable[Mapping[str, Any]], smtp_host: str) -> list[dict[str, Any]]:
    """Return `receivers` of the config, after `nobody`, which discards notifications.

    Raises AnsibleFilterError for a receiver without a destination, an invalid or duplicate name, and e-mail without a
    server.
    """
    found: list[dict[str, Any]] = [{"name": "nobody"}]
    for receiver in receivers:
        name = str(receiver["name"])
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise AnsibleFilterError(f"invalid receiver name: {name!r} (letters, digits, - and _). Rename it.")
        if name in {other["name"] for other in found}:
            raise AnsibleFilterError(f"duplicate receiver name: {name} (nobody is reserved). Rename one.")
        if receiver.get("email_to") and not smtp_host:
            raise AnsibleFilterError(
                f"receiver {name} has email_to, but alertmanager_smtp_host is empty. Set it to the mail server, as host:port."
            )
        configs = {}
        for setting, (kind, config) in DESTINATIONS.items():
            if not receiver.get(setting):
                continue
            config = {"send_resolved": receiver.get("send_resolved") is not False, **config}
            if setting in SECRET_SETTINGS:
                # Where container_service mounts it.
                config[SECRET_SETTINGS[setting]] = f"/run/secrets/{name}_{setting}"
            else:
                config["to"] = str(receiver[setting])
            if setting == "slack_url" and receiver.get("slack_channel"):
                config["channel"] = str(receiver["slack_channel"])
            configs[kind] = [config]
        if not configs:
            raise AnsibleFilterError(
                f"receiver {name}: no destination. Set webhook_url, email_to, slack_url or pagerduty_key."
            )
        found.append({"name": name, **configs})
    return found


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"alertmanager_secrets": alertmanager_secrets, "alertmanager_receivers": alertmanager_receivers}
