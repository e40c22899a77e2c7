"""Write every file that is rendered from another one, or compare it: `vantage render [--check]`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from vantage_tools import compose, readmes
from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT
from vantage_tools.vm.cli import DEVELOPMENT

app = typer.Typer()


def dashboards() -> dict[Path, str]:
    """Return Grafana's dashboards. Imported here, because the SDK takes a second to load."""
    from vantage_tools.dashboards.render import rendered_files

    return rendered_files()


# What renders the texts of files, by their absolute paths.
RENDERERS: list[Callable[[], Mapping[Path, str]]] = [readmes.readmes, dashboards, compose.rendered_files]
# Folders that hold nothing else: a file that is not rendered is removed.
FOLDERS = ("roles/grafana/files/dashboards", "compose/config")


@app.command(rich_help_panel=DEVELOPMENT)
def render(
    check: Annotated[bool, typer.Option("--check", help="compare only; exit with 1 on a difference")] = False,
) -> None:
    """Write every rendered file.

    READMEs' tables, dashboards and docker-compose.yml.
    """
    files = {path: text for renderer in RENDERERS for path, text in renderer().items()}
    found = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    removed = sorted(path for path in found - set(files) if path.name != ".gitkeep")
    changed = {path: text for path, text in files.items() if _read(path) != text}
    if check and (changed or removed):
        for path, text in changed.items():
            old, new = _read(path).splitlines(), text.splitlines()
            print(*difflib.unified_diff(old, new, str(path), "rendered", n=1, lineterm=""), sep="\n")
        names = " ".join(str(path.relative_to(ROOT)) for path in [*changed, *removed])
        raise UserError(f"files are not up to date: {names}.", "make render")
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    for path in removed:
        path.unlink()
        print(f"removed {path.relative_to(ROOT)}")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
