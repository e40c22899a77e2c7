"""Write every file that is rendered from another one, or compare it: `vantage render [--check]`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from vantage_tools import cloud_init, compose, docs
from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT

app = typer.Typer()


class Renderer(NamedTuple):
    """An area's rendered files."""

    # The text of each file, by its absolute path.
    files: Callable[[], Mapping[Path, str]]
    # Folders that hold nothing else, as patterns from the root: a file that is not rendered is removed.
    folders: Sequence[str] = ()


def dashboards() -> dict[Path, str]:
    """Return Grafana's dashboards. Imported here, because the SDK takes a second to load."""
    from vantage_tools.dashboards.render import rendered_files

    return rendered_files()


RENDERERS = {
    "READMEs": Renderer(docs.readmes),
    "cloud-init": Renderer(cloud_init.rendered_files),
    "dashboards": Renderer(dashboards, ["roles/grafana/files/dashboards"]),
    "docker-compose.yml": Renderer(compose.rendered_files, ["compose/config"]),
}


@app.command()
def render(
    check: Annotated[bool, typer.Option("--check", help="compare only; exit with 1 on a difference")] = False,
) -> None:
    """Write the rendered files: READMEs' tables, the cloud-init file, dashboards, docker-compose.yml."""
    stale = []
    for renderer in RENDERERS.values():
        files = renderer.files()
        changed = {path: text for path, text in files.items() if _read(path) != text}
        removed = [
            path
            for folder in renderer.folders
            for path in sorted((ROOT / folder).rglob("*"))
            if path.is_file() and path not in files and path.name != ".gitkeep"
        ]
        stale += [*changed, *removed]
        if check:
            for path, text in changed.items():
                lines = difflib.unified_diff(
                    _read(path).splitlines(), text.splitlines(), str(path), "rendered", n=1, lineterm=""
                )
                print(*lines, sep="\n")
            continue
        for path, text in changed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for path in removed:
            path.unlink()
        print(*(f"wrote {path.relative_to(ROOT)}" for path in changed), sep="\n", end="\n" if changed else "")
        print(*(f"removed {path.relative_to(ROOT)}" for path in removed), sep="\n", end="\n" if removed else "")
    if check and stale:
        raise UserError(
            f"files are not up to date: {' '.join(str(path.relative_to(ROOT)) for path in stale)}.", "make render"
        )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
