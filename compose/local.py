"""What belongs to one machine and is never committed: the override, its config, and the secrets."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

from compose import services
from compose.roles import Findings
from compose.settings import Refused
from compose.text import Replaced, text_of

OVERRIDE = "docker-compose.override.yml"
CONFIG = "compose/local/config"
SECRETS = Path("compose/secrets")
MARK = "# Written by scripts/compose: what is different on this machine. The next `make compose-up` overwrites it.\n"
# As roles/grafana makes them on a host.
GENERATED = {"grafana": ("admin_password", "secret_key")}


def override(committed: dict[str, Any], here: dict[str, Any]) -> str:
    """What Compose is to change about the committed document, so that it is the one of this machine."""
    changed = {name: changes(service, here["services"].get(name)) for name, service in committed["services"].items()}
    changed |= {name: service for name, service in here["services"].items() if name not in committed["services"]}
    result: dict[str, Any] = {"services": {name: service for name, service in changed.items() if service}}
    for part in ("networks", "volumes"):
        if here[part] != committed[part]:
            result[part] = {name: replaced(value) for name, value in here[part].items()}
    return MARK + text_of(result)


def changes(service: dict[str, Any], here: dict[str, Any] | None) -> dict[str, Any]:
    """The keys of a service that differ; one that this machine leaves out is not started."""
    if here is None:
        return {"profiles": ["left-out"]}
    gone = {key: Replaced(type(value)()) for key, value in service.items() if key not in here}
    return gone | {key: replaced(value) for key, value in here.items() if service.get(key) != value}


def replaced(value: Any) -> Any:
    return Replaced(value) if isinstance(value, dict | list) else value


def require_own(output: Path) -> None:
    """Raises Refused where somebody else's override is in the way."""
    path = output / OVERRIDE
    if path.exists() and not path.read_text(encoding="utf-8").startswith(MARK):
        raise Refused(
            f"{path} is there and was not written by scripts/compose; it would be lost. Give it another name and put what it "
            "sets into compose/local.yml as variables, or start Compose yourself with --file. Nothing was written."
        )


def remove(output: Path) -> None:
    """Removes our override and its config; somebody else's stays."""
    path = output / OVERRIDE
    if path.exists() and path.read_text(encoding="utf-8").startswith(MARK):
        path.unlink()
        print(f"removed {OVERRIDE}")
    shutil.rmtree(output / CONFIG, ignore_errors=True)


def write_secrets(found: Findings, password: str, output: Path) -> None:
    """Writes the secrets that were given and makes those that are missing.

    On this machine the folder around them is its owner's alone. In a container each service sees its own folder, whose files
    its user, who is nobody here, must be able to read.
    """
    top = output / SECRETS
    top.mkdir(parents=True, exist_ok=True, mode=0o700)
    top.chmod(0o700)
    users = {services.home(unit) for unit in found.units if unit["secrets"]}
    for name in users:
        (top / name).mkdir(exist_ok=True)
        (top / name).chmod(0o755)
    made = {f"{name}/{file}" for name in users for file in GENERATED.get(name, ())}
    given = {path.removeprefix(f"{services.SECRETS}/"): text for path, text in found.secrets.items()}
    if password:
        given["grafana/admin_password"] = password
    for name in sorted(made | set(given)):
        file = top / name
        old = file.read_text(encoding="utf-8") if file.exists() else ""
        text = given.get(name) or old or secrets.token_urlsafe(24)
        if old != text:
            file.unlink(missing_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"{'wrote' if name in given else 'generated'} {SECRETS / name}")
        file.chmod(0o444)
    for file in sorted(top.glob("*/*")):
        if str(file.relative_to(top)) not in made | set(given):
            file.unlink()
            print(f"removed {file.relative_to(output)}")
