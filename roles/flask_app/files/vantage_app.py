#!/usr/bin/env -S python3 -B
"""Deploys apps so that the running versions keep running when the new ones cannot start.

With --check a command prints what it would change, and changes nothing.

`canary` is the checker of a unit file: it runs before the file takes its place, only where the file differs. `deploy` swaps
the versions, `probation` watches the new ones for a minute, and `rollback` returns to the previous ones.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# Installed in the same folder. -B above: no bytecode cache beside the programs.
import vantage_unit
from vantage_canary import run_canary
from vantage_deploy import SIGNALS, deploy
from vantage_probation import apps_lock, check_restarts, probation
from vantage_rollback import rollback
from vantage_snapshots import restore
from vantage_unit import UnitError


def end(number: int, _: object) -> None:
    """A signal is an exception, so that containers are removed and apps restored on the way out."""
    raise SystemExit(128 + number)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vantage_app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="print what would change, change nothing")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("canary", help="start what a unit file describes beside the running version")
    command.add_argument("service", metavar="SERVICE")
    command.add_argument("candidate", type=Path, metavar="UNIT_FILE")
    command = commands.add_parser(
        "deploy", help="apply the services to keep, remove the owner's others, or restore all"
    )
    command.add_argument("owner", metavar="OWNER")
    command.add_argument("keep", nargs="*", metavar="KEEP")
    commands.add_parser("restore", help="restore the unit files written since the last deployment")
    command = commands.add_parser("rollback", help="return to the apps as they were before the last deployment")
    command.add_argument("owner", nargs="?", default=vantage_unit.APP_OWNER, metavar="OWNER")
    command = commands.add_parser(
        "probation", help="watch the apps for a minute, roll back if one ends again and again"
    )
    command.add_argument("owner", metavar="OWNER")
    command = commands.add_parser("check", help="fail if a service ended by itself since it was deployed")
    command.add_argument("owner", metavar="OWNER")
    command.add_argument("services", nargs="+", metavar="SERVICE")
    arguments = parser.parse_args(argv)
    check = arguments.check
    actions: dict[str, Callable[[], None]] = {
        "canary": lambda: run_canary(arguments.service, arguments.candidate, check),
        "deploy": lambda: deploy(arguments.owner, arguments.keep, check),
        "restore": lambda: restore(check),
        "rollback": lambda: rollback(arguments.owner, check=check),
        "check": lambda: check_restarts(arguments.owner, arguments.services),
        "probation": lambda: None if check else probation(arguments.owner),
    }
    vantage_unit.tolerate_any_text()
    # The probation takes it for its rollback alone; nothing is kept in check mode.
    with contextlib.nullcontext() if check or arguments.command == "probation" else apps_lock():
        try:
            actions[arguments.command]()
        except UnitError as error:
            print(f"vantage_app: {error}", file=sys.stderr)
            return 1
        except Exception:  # a bug: what was changed is restored, and the operator reads all of it
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    for signal_number in SIGNALS:
        signal.signal(signal_number, end)
    sys.exit(main(sys.argv[1:]))
