"""What the rules are made of: objectives of the apps, memory limits of the services, and the runbooks' sections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.text.formatters import human_to_bytes

ROLES = Path(__file__).resolve().parents[2]
# Roles that run what others name.
NO_SERVICE = {"container_service", "flask_app"}
HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}


def memory_limits(given: Mapping[str, Any], apps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `service` and `bytes` of everything that may run; `given` are the host's variables.

    The replicas of an app are one service, whose limit is that of each: the kernel ends one for what it uses alone.
    """
    limits: dict[str, Any] = {}
    for path in ROLES.glob("*/defaults/main.yml"):
        role = path.parent.parent.name
        default = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(f"{role}_memory")
        if default:
            limits[role] = given.get(f"{role}_memory", default)
    limits.update({str(app["name"]): app.get("memory") or limits["flask_app"] for app in apps})
    return [
        {"service": name.replace("_", "-"), "bytes": human_to_bytes(str(limit))}
        for name, limit in sorted(limits.items())
        if name not in NO_SERVICE
    ]


def slos(
    targets: Iterable[Mapping[str, Any]],
    own: Iterable[Mapping[str, Any]],
    availability_percent: float,
    latency_percent: float,
    latency_seconds: float,
    unscraped: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Return one objective for each service among the `targets` and the `unscraped` apps, which may have spans.

    Its entry in `own` overrides the defaults given. Raises AnsibleFilterError for an entry of an unknown service, and
    for an objective of 100 % or more.
    """
    scraped = {str(target["labels"]["service_name"]) for target in targets}
    services = sorted(scraped | set(unscraped))
    entries = {str(entry["service"]): entry for entry in own}
    if unknown := sorted(set(entries) - set(services)):
        raise AnsibleFilterError(
            f"prometheus_slos: unknown service: {', '.join(unknown)} "
            f"(apps: {', '.join(services) or 'none'}). Correct the name, or remove the entry."
        )
    found = []
    for service in services:
        entry = entries.get(service, {})
        availability = float(entry.get("availability_percent") or availability_percent)
        latency = float(entry.get("latency_percent") or latency_percent)
        for name, percent in (("availability_percent", availability), ("latency_percent", latency)):
            # 100 leaves no error budget to divide by.
            if not 0 < percent < 100:
                raise AnsibleFilterError(
                    f"{name} of {service} is out of range: {percent} (more than 0, less than 100). Set for example 99.5."
                )
        found.append({
            "service": service,
            "scraped": service in scraped,
            "availability_ratio": round(availability / 100, 8),
            "latency_ratio": round(latency / 100, 8),
            # As Prometheus writes the bounds of a histogram: 1.0, not 1.
            "latency_seconds": float(entry.get("latency_seconds") or latency_seconds),
        })  # fmt: skip
    return found


def milliseconds_bound(seconds: float | str) -> str:
    """Return a pattern for the label `le` in milliseconds of a bound in seconds; a whole number may end in .0."""
    if seconds == "+Inf":
        return "[+]Inf"
    text = f"{float(seconds) * 1000:g}"
    return text.replace(".", "[.]") if "." in text else f"{text}([.]0)?"


def within_retention(days: int, retention: str) -> int:
    """Return the days of the error budget; raises AnsibleFilterError where the store keeps less than that."""
    kept = sum(int(n) * HOURS[unit] for n, unit in re.findall(r"(\d+)(y|w|d|h)", retention)) / 24
    if kept < days:
        raise AnsibleFilterError(
            f"prometheus_slo_days is longer than prometheus_retention_time: {days} (at most {retention}). "
            "Lower the one or raise the other."
        )
    return days


def duration_seconds(duration: str) -> float:
    """Return the seconds of a duration as Prometheus writes it, such as 15s or 1m30s."""
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(n) * seconds[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h|d)", duration))


def _paragraphs(alert: str, page: str) -> list[str]:
    """Return the paragraphs of the alert's section that say where to look and what to do."""
    section = re.search(rf"^## {re.escape(alert)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if not section:
        raise AnsibleFilterError(f"docs/runbooks.md has no section {alert}. Add one: the alert contains it.")
    # What the alert means is in its summary already.
    return [text for text in re.split(r"\n{2,}", section[1].strip()) if not text.startswith("**Means.**")]


def runbook(alert: str, page: str, address: str = "") -> str:
    """Return the annotations `runbook` and, with an address of the page, `runbook_url`, as lines of a rule.

    A section that sends the reader to another alert's has the other one's paragraphs after its own.
    """
    paragraphs = _paragraphs(alert, page)
    for other in re.findall(r"\b[Aa]s for (\w+)", "\n".join(paragraphs)):
        paragraphs += [f"{other}:", *_paragraphs(other, page)]
    plain = "\n\n".join(re.sub(r"\*\*(.+?)\*\*", r"\1", text) for text in paragraphs)
    # Prometheus fills in what stands in double braces; nothing of a runbook is meant for it.
    text = json.dumps(plain.replace("{{", '{{ "{{" }}'), ensure_ascii=False)
    link = f"\n          runbook_url: {address}#{alert.lower()}" if address else ""
    return f"runbook: {text}{link}"


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {
            "duration_seconds": duration_seconds,
            "memory_limits": memory_limits,
            "milliseconds_bound": milliseconds_bound,
            "runbook": runbook,
            "slos": slos,
            "within_retention": within_retention,
        }
