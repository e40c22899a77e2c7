"""Returns to the apps as they were before a deployment that succeeded."""

from __future__ import annotations

import time
from typing import Any

import vantage_unit
from vantage_deploy import PROBATION_UNIT, deploy
from vantage_snapshots import save_snapshot
from vantage_unit import Unit, UnitError, read_text, unit_path, write_text


def rollback(owner: str, reason: str = "", check: bool = False) -> None:
    """Returns to the apps as they were before the last deployment. Used again, it returns to those of now."""
    units: dict[str, Any] = vantage_unit.read_deployment(owner).get("units", {})
    if not units:
        raise UnitError(
            "no previous version is kept: nothing was deployed over a running app, or the last deployment was rolled back "
            "by itself. Deploy the version you want with site.yml. Nothing was changed."
        )
    if missing := [
        unit["image"] for unit in units.values() if unit["image"] and not vantage_unit.image_id(unit["image"])
    ]:
        raise UnitError(
            f"the image of the previous version is not on this host: {', '.join(missing)}. "
            "Deploy that version with site.yml. Nothing was changed."
        )
    installed = [unit for unit in vantage_unit.installed_units() if unit.owner == owner]
    now = {unit.service: unit.image for unit in installed}
    if now.keys() == units.keys() and not any(differs(service, unit) for service, unit in units.items()):
        raise UnitError(
            "the last deployment changed only secrets, which a rollback does not restore. Nothing was changed. "
            "Correct them and run site.yml again."
        )
    if not reason and not check:
        # It would judge the previous versions.
        vantage_unit.run("systemctl", "stop", f"{PROBATION_UNIT}.service")
    for service, unit in units.items():
        print(service, "rollback")
        if not check:
            save_snapshot(service)
            write_text(unit_path(service), unit["text"])
            if unit["image"]:
                vantage_unit.run("docker", "tag", unit["image"], Unit(service, unit["text"]).image)
    if check:
        vantage_unit.remove(owner, list(units), check)
        return
    vantage_unit.run("systemctl", "daemon-reload")
    images = ", ".join(f"{service} {image}" for service, image in now.items())
    text = f"Rolled back at {time.strftime('%Y-%m-%d %H:%M:%S %Z')}: {reason or 'by command'}. Version before the rollback: {images}."
    deploy(owner, list(units), rollback_reason=text)


def differs(service: str, unit: dict[str, Any]) -> bool:
    """Whether the previous unit, or the image that it started, differs from the present one."""
    is_image_kept = not unit["image"] or unit["image"] == vantage_unit.image_id(Unit(service, unit["text"]).image)
    return unit["text"] != read_text(unit_path(service)) or not is_image_kept
