"""The secrets of one machine, which are never committed."""

from __future__ import annotations

import secrets
from pathlib import Path

from compose import services
from compose.roles import Findings

SECRETS = Path("compose/secrets")
# As roles/grafana makes them on a host.
GENERATED = {"grafana": ("admin_password", "secret_key")}


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
