"""Write docker-compose.yml and the config it mounts, from the roles: `python -m compose [--check]`, from the root.

With --extra-vars it leaves those files alone and writes docker-compose.override.yml, which Compose reads by itself: what
is different on this machine.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from compose import local, services, settings
from compose.roles import Findings, Reader, read
from compose.text import plain, text_of

HEAD = """\
# Rendered by `make compose` from the roles and inventory/compose: change those, not this file.
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


def differences(files: dict[Path, str], output: Path) -> list[str]:
    """How the files below `output` differ from what they should be."""
    lines: list[str] = []
    for name, text in files.items():
        path = output / name
        if not path.exists():
            lines.append(f"{name} is missing")
            continue
        old = path.read_text(encoding="utf-8").splitlines()
        lines += difflib.unified_diff(old, text.splitlines(), str(name), "the roles", n=1, lineterm="")
    return lines + [f"{name} is rendered from nothing" for name in stale(files, output, services.COMMITTED)]


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


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a file is not up to date")
    parser.add_argument(
        "--secrets", action="store_true", help="also write the secrets, and make those that are missing"
    )
    parser.add_argument("--inventory", type=Path, default=settings.INVENTORY, help="default: inventory/compose")
    parser.add_argument(
        "--extra-vars", type=Path, metavar="FILE", action="append", default=[], help="what is different here"
    )
    parser.add_argument(
        "--output", type=Path, default=settings.ROOT, help="where docker-compose.yml goes; default: here"
    )
    return parser.parse_args()


def run(wanted: argparse.Namespace) -> int:
    """Does what the command line asks for; raises Refused."""
    output = wanted.output.resolve()
    given = settings.of_laptop(wanted.inventory)
    document, files, found = rendered(given, output, services.COMMITTED)
    files[Path("docker-compose.yml")] = HEAD + text_of(document)
    if wanted.check:
        lines = differences(files, output)
        print("\n".join([*lines, "Run `make compose` and commit the result."] if lines else []))
        return 1 if lines else 0
    if wanted.extra_vars:
        given = settings.of_laptop(wanted.inventory, wanted.extra_vars)
        here, files, found = rendered(given, output, local.CONFIG)
        local.require_own(output)
        files[Path(local.OVERRIDE)] = local.override(document, here)
        write(files, output, local.CONFIG)
    else:
        local.remove(output)
        write(files, output, services.COMMITTED)
    if wanted.secrets:
        password = Reader("grafana", given, Findings()).variable("grafana_admin_password")
        local.write_secrets(found, str(password), output)
    return 0


def main() -> int:
    """Writes the files, or with --check says how they differ from the roles."""
    settings.load_plugins()
    try:
        return run(options())
    except settings.Refused as refused:
        print(f"compose: {refused}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
