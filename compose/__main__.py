"""docker-compose.yml and the config it mounts, from the roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compose import services
from compose.roles import Findings, Reader, read
from compose.text import plain

HEAD = """\
# Rendered by `make render` from the roles and inventory/compose: change those, not this file.
# `make compose-up` starts it, makes the password and verifies it; docs/compose.md says more.
"""
# What the document needs beside the units, and whose role knows it.
NEEDED = {
    "vantage_network_subnet": "promtail",
    "vantage_network_gateway": "promtail",
    "promtail_image": "promtail",
    "traffic_enabled": "traffic",
}


def rendered(given: dict[str, Any], output: Path, config: str) -> tuple[dict[str, Any], dict[Path, str], Findings]:
    """The document, every config file by its path below `output`, and what the roles said."""
    found = read(given)
    needed = {name: Reader(role, given, Findings()).variable(name) for name, role in NEEDED.items()}
    document = services.document(found, needed, output, config)
    return plain(document), config_files(found, Path(config)), found


def config_files(found: Findings, folder: Path) -> dict[Path, str]:
    """What the services mount as their config."""
    units = {str(unit["name"]) for unit in found.units}

    def place(path: str) -> Path | None:
        inside = Path(path.removeprefix(f"{services.CONFIG}/"))
        return folder / inside if path.startswith(f"{services.CONFIG}/") and inside.parts[0] in units else None

    # git keeps no empty folder, and nothing can be mounted into one that is not there.
    empty = {f"{path}/.gitkeep": "" for path in [*found.directories, *found.folders]}
    return {where: text for path, text in {**empty, **found.files}.items() if (where := place(path))}


def stale(files: dict[Path, str], output: Path, config: str) -> list[Path]:
    """Files of a former rendering."""
    there = [path.relative_to(output) for path in sorted((output / config).rglob("*")) if path.is_file()]
    return [path for path in there if path not in files]


def write(files: dict[Path, str], output: Path, config: str) -> None:
    """Writes what differs and removes what is left of a former rendering of `config`."""
    for name, text in files.items():
        path = output / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    for name in stale(files, output, config):
        (output / name).unlink()
        print(f"removed {name}")
