"""The command `vantage`. Each area defines its subcommands in its own module and is registered here."""

from __future__ import annotations

import subprocess
import sys

import typer

from vantage_tools import box, cloud_init, libvirt, machine_tests
from vantage_tools.errors import UserError
from vantage_tools.process import extend_path
from vantage_tools.vm.cli import app as vm

app = typer.Typer(
    name="vantage",
    help="Everything that runs on the developer's machine. `make help` lists the common tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(vm)
app.add_typer(cloud_init.app, name="cloud-init")
app.add_typer(libvirt.app, name="libvirt")
app.command()(box.box)
app.add_typer(machine_tests.app)


def main() -> None:
    """Run the command; an error that the user can fix is printed without a traceback."""
    extend_path()
    try:
        app(prog_name="vantage")
    except UserError as error:
        print(f"vantage: {error}", file=sys.stderr)
        sys.exit(1)
    except subprocess.CalledProcessError as error:
        # The program has said why, unless its output was captured.
        print(error.stderr or "", end="", file=sys.stderr)
        print(f"vantage: {error.cmd[0]} failed: exit code {error.returncode}.", file=sys.stderr)
        sys.exit(error.returncode if error.returncode > 0 else 1)
