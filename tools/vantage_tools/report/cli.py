"""The commands `render-report` and `samples`: from collected data to a report or to samples."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vantage_tools.errors import UserError

Data = Annotated[Path, typer.Option(help="Data that roles/report/files/collect.py wrote.")]
Folder = Annotated[Path, typer.Option(help="Folder to write into.")]


def read(path: Path) -> dict[str, Any]:
    """Return the collected data; raises UserError."""
    try:
        data: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the data: {path} ({error}).", "collect it again: make report ARGS='-e report_keep_data=true'"
        ) from error
    return data


def render_report(data: Data, out: Folder = Path("report")) -> None:
    """Draw and write a report of collected data."""
    # Imported here: matplotlib takes a second to load.
    from vantage_tools.report.render import HTML, write

    findings = write(read(data), out)
    print(f"report: {len(list(out.glob('*.png')))} pictures, {len(findings)} findings")
    for finding in findings:
        print(f"report:   {finding.severity}: {finding.title}")
    print(f"report: written to {out / HTML}")


def samples(data: Data, out: Folder = Path("docs/samples")) -> None:
    """Write log lines and traces of collected data as files."""
    from vantage_tools.report.samples import write

    print(f"samples: {', '.join(write(read(data), out))} in {out}")
