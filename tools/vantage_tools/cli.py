"""The command `vantage`. Each area defines its subcommands in its own module and is registered here."""

from __future__ import annotations

import sys

import typer

from vantage_tools import bench, fill_past
from vantage_tools.errors import UserError
from vantage_tools.report import cli as report

app = typer.Typer(
    name="vantage",
    help="Everything that runs on the developer's machine. `make help` lists the common tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    """Keep subcommands named even while there is only one."""


app.command()(report.render_report)
app.command()(report.samples)
app.command()(bench.bench)
app.command()(fill_past.fill_past)


def main() -> None:
    """Run the command; an error that the user can fix is printed without a traceback."""
    try:
        app(prog_name="vantage")
    except UserError as error:
        print(f"vantage: {error}", file=sys.stderr)
        sys.exit(1)
