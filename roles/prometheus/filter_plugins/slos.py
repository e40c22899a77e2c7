"""Service level objectives of the apps that are scraped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}


def ratio(service: str, name: str, percent: float) -> float:
    """A percentage as a share; 100 leaves no error budget to divide by."""
    if not 0 < percent < 100:
        raise AnsibleFilterError(
            f"The {name} of {service} is {percent}: it must lie between 0 and 100, for example 99.5."
        )
    return round(percent / 100, 8)


def slos(
    targets: Iterable[Mapping[str, Any]],
    own: Iterable[Mapping[str, Any]],
    availability_percent: float,
    latency_percent: float,
    latency_seconds: float,
) -> list[dict[str, Any]]:
    """One objective for each service among the `targets`: its entry in `own` over the defaults given.

    Raises AnsibleFilterError for an entry of a service that is not scraped, and for an objective of 100 % or more.
    """
    services = sorted({str(target["labels"]["service_name"]) for target in targets})
    entries = {str(entry["service"]): entry for entry in own}
    if unknown := sorted(set(entries) - set(services)):
        known = ", ".join(services) or "none"
        raise AnsibleFilterError(
            f"prometheus_slos names {', '.join(unknown)}, which no scraped app of vantage_apps is called. There are: {known}."
        )
    found = []
    for service in services:
        entry = entries.get(service, {})
        found.append(
            {
                "service": service,
                "availability_ratio": ratio(
                    service, "availability_percent", float(entry.get("availability_percent") or availability_percent)
                ),
                "latency_ratio": ratio(
                    service, "latency_percent", float(entry.get("latency_percent") or latency_percent)
                ),
                # As Prometheus writes the bounds of a histogram: 1.0, not 1.
                "latency_seconds": float(entry.get("latency_seconds") or latency_seconds),
            }
        )
    return found


def within_retention(days: int, retention: str) -> int:
    """The days of the error budget; raises AnsibleFilterError where the store keeps less than that."""
    kept = sum(int(n) * HOURS[unit] for n, unit in re.findall(r"(\d+)(y|w|d|h)", retention)) / 24
    if kept < days:
        raise AnsibleFilterError(
            f"prometheus_slo_days is {days}, but prometheus_retention_time is {retention}: what is gone cannot be "
            "counted. Lower the one or raise the other."
        )
    return days


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"slos": slos, "within_retention": within_retention}
