"""The command `vantage`. Each area defines its subcommands in its own module and is registered here."""

from __future__ import annotations

import subprocess
import sys

import typer

from vantage_tools import bench, cloud_init, compose, fill_past, lint, render, testing
from vantage_tools.errors import UserError
from vantage_tools.images.cli import app as images
from vantage_tools.process import prepare_environment
from vantage_tools.report import cli as report
from vantage_tools.vm import box
from vantage_tools.vm import cli as vm
from vantage_tools.vm.cli import DEVELOPMENT, MACHINES

app = typer.Typer(
    name="vantage",
    help="Everything that runs on the developer's machine; `make help` lists the common tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
others = typer.Typer()
for command in (bench.bench, fill_past.fill_past, report.render_report, report.samples):
    others.command(rich_help_panel=DEVELOPMENT)(command)
vm.machines.command(rich_help_panel=MACHINES)(box.box)
# The panels of `vantage --help` come in the order of their first command.
app.add_typer(vm.app)
app.add_typer(images, name="images", rich_help_panel=DEVELOPMENT)
for commands in (testing.app, lint.app, render.app, others):
    app.add_typer(commands)
app.add_typer(compose.app, name="compose", rich_help_panel=MACHINES)
app.add_typer(vm.machines)
app.add_typer(cloud_init.app, name="cloud-init", rich_help_panel=MACHINES)


def main() -> None:
    """Run the command; an error that the user can fix is printed without a traceback."""
    prepare_environment()
    try:
        app(prog_name="vantage")
    except UserError as error:
        print(f"vantage: {error}", file=sys.stderr)
        sys.exit(1)
    except FileNotFoundError as error:
        if error.filename is None or "/" in str(error.filename):
            raise
        print(f"vantage: {error.filename} is not installed.", file=sys.stderr)
        sys.exit(127)
    except subprocess.CalledProcessError as error:
        # The program has printed the reason, unless its output was captured.
        print(error.stdout or "", error.stderr or "", sep="", end="", file=sys.stderr)
        print(f"vantage: {error.cmd[0]} failed: exit code {error.returncode}.", file=sys.stderr)
        sys.exit(error.returncode if error.returncode > 0 else 1)
