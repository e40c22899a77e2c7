"""Which port and path of an app say that it is ready, where its settings do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import filter_loader

DEFAULT_PORT = 8000


def health_check(app: Mapping[str, Any]) -> dict[str, Any]:
    """`path`, and `below`: the status from 200 to below which the app is ready.

    A path that the user chose must answer 2xx, and so must /readyz of flask_vantage. Of any other path it is unknown what
    it means to the app: a redirect to a login or a 404 shows as well that it serves requests.
    """
    if app.get("health_path"):
        return {"path": str(app["health_path"]), "below": 300}
    if source := app.get("source"):
        folder = str(Path(str(source)).expanduser())
        has_vantage = Path(folder).is_dir() and bool(filter_loader.get("uses_vantage").j2_function(folder))
        return {"path": "/readyz", "below": 300} if has_vantage else {"path": "/", "below": 500}
    return {"path": "/readyz" if boolean(app.get("metrics", True)) else "/", "below": 500}


def container_port(app: Mapping[str, Any], exposed: Mapping[str, Any]) -> int:
    """The port that the app listens on: its own setting, or the one that its image exposes, or 8000.

    For an app with a Dockerfile that is what its last stage says; `exposed` has the ports of other images by app.
    """
    if app.get("container_port"):
        return int(app["container_port"])
    dockerfile = Path(str(app.get("source") or "/")).expanduser() / "Dockerfile"
    if app.get("source") and dockerfile.is_file():
        text = dockerfile.read_text(encoding="utf-8", errors="replace")
        return only_port(filter_loader.get("dockerfile_words").j2_function(text, "EXPOSE"))
    return int(exposed.get(app["name"], DEFAULT_PORT))


def only_port(words: list[str]) -> int:
    """The one TCP port among words such as `5000/tcp`, otherwise 8000."""
    ports = {word.partition("/")[0] for word in words if word.partition("/")[2].lower() in ("", "tcp")}
    number = ports.pop() if len(ports) == 1 else ""
    return int(number) if number.isdigit() else DEFAULT_PORT


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"health_check": health_check, "container_port": container_port, "only_port": only_port}
