"""Derives the apps and their services from the settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import filter_loader


def own_apps(given: Mapping[str, Any], demo: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The app of flask_app_source or flask_app_image as a list of one, or the demo's apps if both are empty.

    `given` maps keys to the variables flask_app_<key>. An app without flask_vantage has no /metrics.
    """
    app = {key: value for key, value in given.items() if value not in ("", None, [], {})}
    # Values of `-e key=value` are text.
    app |= {
        key: int(app[key])
        for key in ("port", "container_port", "replicas", "ready_seconds")
        if str(app.get(key)).isdigit()
    }
    app |= {
        key: str(app[key]).lower() in {"true", "yes", "1", "on"} for key in ("metrics", "shared_data") if key in app
    }
    app |= {key: app[key].split(",") for key in ("writable", "trusted_proxies") if isinstance(app.get(key), str)}
    if not app.get("source") and not app.get("image"):
        return demo
    folder = Path(str(app.get("source", ""))).expanduser().resolve() if app.get("source") else None
    title = folder.name if folder else str(app["image"]).rpartition("/")[2].partition("@")[0].partition(":")[0]
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-")
    has_vantage = folder is not None and folder.is_dir() and uses_vantage(folder)
    # Absolute, because tasks on the controller may run in another working directory.
    app |= {"source": str(folder)} if folder else {}
    return [{"name": name, "port": 8000, "metrics": has_vantage} | app]


def uses_vantage(folder: Path) -> bool:
    return bool(filter_loader.get("uses_vantage").j2_function(str(folder)))


def is_scraped(app: Mapping[str, Any]) -> bool:
    """Whether Prometheus scrapes an app that may not say so: an image, and a source that imports flask_vantage."""
    if "metrics" in app:
        return boolean(app["metrics"])
    folder = Path(str(app.get("source") or "")).expanduser()
    return not app.get("source") or not folder.is_dir() or uses_vantage(folder)


def app_services(apps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The services of the apps, in order: an app with `replicas: 3` has the services blog, blog-2 and blog-3.

    Each has `name`, `app`, `number` (from 1), `port` on the host (consecutive for replicas), the app's `address`, and
    `replica_of`, which is empty for the first: it does not depend on the number of replicas.
    """
    return [
        {
            "name": app["name"] if number == 1 else f"{app['name']}-{number}",
            "app": app["name"],
            "number": number,
            "port": int(app["port"]) + number - 1,
            "address": app.get("address") or "",
            "replica_of": "" if number == 1 else app["name"],
        }
        for app in apps
        for number in range(1, int(app.get("replicas") or 1) + 1)
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"app_services": app_services, "is_scraped": is_scraped, "own_apps": own_apps}
