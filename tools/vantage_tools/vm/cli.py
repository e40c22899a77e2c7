"""The subcommands for the VM; `make` has a target of the same name for most."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vantage_tools.errors import UserError
from vantage_tools.paths import cache_dir
from vantage_tools.process import lock, output, replace_process
from vantage_tools.vm import endpoints, engine, host_tools
from vantage_tools.vm.container import SystemContainer
from vantage_tools.vm.machine import UNIT_PROGRAM, Kind, Machine, choose, list_services, play, require_vm

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
EVERYDAY, DEVELOPMENT, MACHINES = "Everyday", "Development", "Machines"

app, machines = typer.Typer(), typer.Typer()
VM = Annotated[Kind, typer.Option("--vm", help="auto: Vagrant if installed and it need not emulate, else a container")]


def installed(vm: Kind) -> tuple[Machine, list[dict[str, Any]]]:
    """Return the VM and its services; raise UserError without VM or Vantage."""
    machine = choose(vm)
    return machine, list_services(machine)


@app.command(rich_help_panel=EVERYDAY)
def up(vm: VM = Kind.AUTO) -> None:
    """Create a VM with everything on it, and verify it."""
    with lock(cache_dir() / "up.lock", "another `make up` is running. Nothing was changed."):
        machine = choose(vm)
        machine.create()
        play(machine.kind, "playbooks/verify.yml")
        print("", *endpoints.describe(machine, list_services(machine)), sep="\n")


@app.command(rich_help_panel=EVERYDAY)
def verify(vm: VM = Kind.AUTO) -> None:
    """Send one request and find it as metric, log line and trace."""
    machine, _ = installed(vm)
    play(machine.kind, "playbooks/verify.yml")


@app.command(rich_help_panel=EVERYDAY)
def status(vm: VM = Kind.AUTO) -> None:
    """Print one line per service; exit 1 if one is not ready."""
    machine, _ = installed(vm)
    replace_process(*machine.command(UNIT_PROGRAM, "status"))


@app.command(context_settings=PASS_ON, rich_help_panel=EVERYDAY)
def report(context: typer.Context, vm: VM = Kind.AUTO) -> None:
    """Write a page about the last minutes and hours to report/."""
    machine, _ = installed(vm)
    # Further arguments are ansible-playbook's.
    play(machine.kind, "playbooks/report.yml", *context.args)


@app.command(rich_help_panel=EVERYDAY)
def logs(service: Annotated[str, typer.Argument()] = "", vm: VM = Kind.AUTO) -> None:
    """Print the last 100 log lines of a service or an app."""
    machine, services = installed(vm)
    units = [entry["unit"] for entry in services if service in (entry["service"], entry["app"])]
    if not service or not units:
        names = " ".join(sorted(entry["service"] for entry in services))
        raise UserError(f"unknown service: {service or 'none given'} (one of {names}).", "make logs S=SERVICE")
    options = ("--lines", "100", "--output", "cat", "--no-pager")
    replace_process(*machine.command("journalctl", *(f"--unit={unit}" for unit in units), *options))


@app.command(rich_help_panel=EVERYDAY)
def shell(vm: VM = Kind.AUTO) -> None:
    """Open a shell on the VM."""
    machine = choose(vm)
    require_vm(machine)
    replace_process(*machine.shell_command())


@app.command(rich_help_panel=EVERYDAY)
def password(vm: VM = Kind.AUTO) -> None:
    """Print Grafana's admin password."""
    machine, services = installed(vm)
    if "grafana" not in endpoints.page_ports(services):
        raise endpoints.NO_GRAFANA
    print(output(*machine.command("cat", "/etc/vantage/secrets/grafana/admin_password")).strip())


@app.command(rich_help_panel=EVERYDAY)
def down(vm: VM = Kind.AUTO) -> None:
    """Remove the VM and its data."""
    choose(vm).destroy()


@machines.command("host-tools", rich_help_panel=MACHINES)
def host_tools_command(groups: list[str]) -> None:
    """Install the system packages that a group of tasks needs."""
    host_tools.install(*groups)


engine_app = typer.Typer(help="Start the Docker engine of this machine.", no_args_is_help=True)
machines.add_typer(engine_app, name="engine", rich_help_panel=MACHINES)


@engine_app.command("start")
def engine_start() -> None:
    """Install or start an engine unless one answers."""
    engine.ensure_engine()


container_app = typer.Typer(help="Run systemd and Docker in a container, without a VM.", no_args_is_help=True)
machines.add_typer(container_app, name="container", rich_help_panel=MACHINES)


@container_app.command("up")
def container_up(
    name: str,
    network: Annotated[str, typer.Option(help="a Docker network that exists; with --address")] = "",
    address: Annotated[str, typer.Option(help="its address on that network")] = "",
) -> None:
    """Create or start a system container and wait for systemd."""
    SystemContainer(name).up(network=network, address=address)


@container_app.command("down")
def container_down(name: str) -> None:
    """Remove a system container and its volumes."""
    SystemContainer(name).down()


@container_app.command("restart")
def container_restart(name: str) -> None:
    """Shut systemd down and boot it again."""
    SystemContainer(name).restart()
