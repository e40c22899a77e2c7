"""Unit files as they were before a run wrote them, to which every app returns when one fails."""

from __future__ import annotations

from pathlib import Path

import vantage_unit
from vantage_unit import Unit, read_text, unit_path, write_text


def is_active(service: str) -> bool:
    shown = vantage_unit.systemd_properties(service, "ActiveState")
    return shown.get("ActiveState") in {"active", "reloading"}


def inspect(container: str, template: str) -> str:
    result = vantage_unit.run("docker", "container", "inspect", "--format", template, container)
    return str(result.stdout.strip())


def snapshot_folder() -> Path:
    """Unit files as they were before this run wrote them; an empty one stands for a service that did not exist."""
    return vantage_unit.STATE / "snapshots"


def snapshot_path(service: str) -> Path:
    return snapshot_folder() / f"{service}.service"


def save_snapshot(service: str) -> None:
    """Keeps the unit file that is about to be replaced, unless an interrupted run has kept an older one."""
    saved = snapshot_path(service)
    if saved.exists() and vantage_unit.drift(service):
        return
    saved.parent.mkdir(parents=True, exist_ok=True)
    write_text(saved, read_text(unit_path(service)))


def is_replacing() -> bool:
    """Whether a run has written units from which nothing was started yet."""
    return any(snapshot_folder().glob("*.service"))


def restore_file(service: str, text: str) -> None:
    """Writes the unit file as it was; a service that did not exist is stopped and its unit removed."""
    path = unit_path(service)
    if not text:
        vantage_unit.run("systemctl", "disable", "--now", path.name)
        path.unlink(missing_ok=True)
    elif text != read_text(path):
        write_text(path, text)


def restore(check: bool = False) -> None:
    """Restores the unit files that were written since the last deployment. No service was started from them yet."""
    for saved in sorted(snapshot_folder().glob("*.service")):
        text = read_text(saved)
        differs = text != read_text(unit_path(saved.stem))
        if differs:
            print(saved.stem, "restore")
        if check:
            continue
        if differs:
            restore_file(saved.stem, text)
        saved.unlink()
    if not check:
        vantage_unit.run("systemctl", "daemon-reload")


class Snapshot:
    """A service as it was before the deployment."""

    def __init__(self, service: str) -> None:
        saved = snapshot_path(service)
        self.service = service
        self.unit = Unit(service, read_text(saved if saved.exists() else unit_path(service)))
        self.was_active = bool(self.unit.text) and is_active(service)
        # The image itself: its tag may point to another one since.
        self.image_id = inspect(f"vantage-{service}", "{{.Image}}") if self.was_active else ""

    def restore(self) -> None:
        restore_file(self.service, self.unit.text)
        if self.image_id and self.image_id != vantage_unit.image_id(self.unit.image):
            vantage_unit.run("docker", "tag", self.image_id, self.unit.image)

    def restart(self) -> str:
        """Empty when the service runs again, otherwise the diagnosis."""
        try:
            vantage_unit.apply(self.service)
        except Exception as error:  # the others are restarted all the same
            return str(error)
        return ""
