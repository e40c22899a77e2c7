"""The subcommands for the VM; `make` has a target of the same name for most."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from vantage_tools.errors import UserError
from vantage_tools.paths import cache_dir
from vantage_tools.process import output, replace_process
from vantage_tools.vm import endpoints, engine, host_tools
from vantage_tools.vm.container import SystemContainer
from vantage_tools.vm.machine import UNIT_PROGRAM, Kind, choose, list_services, play, require_vm

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer()
VM = Annotated[Kind, typer.Option("--vm", help="auto: Vagrant if installed and it need not emulate, else a container")]


@app.command()
def up(vm: VM = Kind.AUTO) -> None:
    """Create a VM with everything on it, and verify it."""
    with lock():
        machine = choose(vm)
        machine.create()
        play(machine.kind, "playbooks/verify.yml")
        print("", *endpoints.describe(machine, list_services(machine)), sep="\n")


@app.command()
def verify(vm: VM = Kind.AUTO) -> None:
    """Send one request and find it as metric, log line and trace."""
    machine = choose(vm)
    list_services(machine)
    play(machine.kind, "playbooks/verify.yml")


@app.command()
def status(vm: VM = Kind.AUTO) -> None:
    """Print one line per service; exit with 1 if one is not ready."""
    machine = choose(vm)
    list_services(machine)
    replace_process(*machine.command(UNIT_PROGRAM, "status"))


@app.command(context_settings=PASS_ON)
def report(context: typer.Context, vm: VM = Kind.AUTO) -> None:
    """Write a page about the last minutes and hours to report/; further arguments go to ansible-playbook."""
    machine = choose(vm)
    list_services(machine)
    play(machine.kind, "playbooks/report.yml", *context.args)


@app.command()
def logs(service: Annotated[str, typer.Argument()] = "", vm: VM = Kind.AUTO) -> None:
    """Print the last 100 log lines of a service, of all its replicas for an app."""
    machine = choose(vm)
    services = list_services(machine)
    units = [entry["unit"] for entry in services if service in (entry["service"], entry["app"])]
    if not service or not units:
        names = " ".join(sorted(entry["service"] for entry in services))
        raise UserError(f"unknown service: {service or 'none given'} (one of {names}).", "make logs S=SERVICE")
    options = ("--lines", "100", "--output", "cat", "--no-pager")
    replace_process(*machine.command("journalctl", *(f"--unit={unit}" for unit in units), *options))


@app.command()
def shell(vm: VM = Kind.AUTO) -> None:
    """Open a shell on the VM."""
    machine = choose(vm)
    require_vm(machine)
    replace_process(*machine.shell_command())


@app.command()
def password(vm: VM = Kind.AUTO) -> None:
    """Print Grafana's admin password."""
    machine = choose(vm)
    if not endpoints.has_grafana(list_services(machine)):
        raise endpoints.NO_GRAFANA
    print(output(*machine.command("cat", "/etc/vantage/secrets/grafana/admin_password")).strip())


@app.command()
def down(vm: VM = Kind.AUTO) -> None:
    """Remove the VM and its data."""
    choose(vm).destroy()


@app.command("host-tools")
def host_tools_command(groups: list[str], check: Annotated[bool, typer.Option("--check")] = False) -> None:
    """Install the system packages for a group of tasks; with --check only name the missing ones."""
    if not check:
        host_tools.install(*groups)
    elif missing := host_tools.missing_packages(*groups):
        raise UserError(f"missing packages: {' '.join(missing)}.")


engine_app = typer.Typer(help="The Docker engine of this machine.", no_args_is_help=True)
app.add_typer(engine_app, name="engine")


@engine_app.command("start")
def engine_start() -> None:
    """Install or start an engine unless one answers."""
    engine.ensure_engine()


@engine_app.command("stop")
def engine_stop() -> None:
    """Stop the engine that `start` started without systemd."""
    engine.stop()


container_app = typer.Typer(help="A system container: systemd and Docker without a VM.", no_args_is_help=True)
app.add_typer(container_app, name="container")


@container_app.command("up")
def container_up(
    name: str,
    publish: Annotated[list[str] | None, typer.Option(metavar="PORT", help="PORT or HOST:PORT, on 127.0.0.1")] = None,
    mount: Annotated[list[str] | None, typer.Option(metavar="SOURCE:TARGET")] = None,
    network: Annotated[str, typer.Option(help="a Docker network that exists; with --address")] = "",
    address: Annotated[str, typer.Option(help="its address on that network")] = "",
) -> None:
    """Create or start it and wait for systemd."""
    SystemContainer(name).up(publish or [], mount or [], network, address)


@container_app.command("down")
def container_down(name: str, keep_data: Annotated[bool, typer.Option("--keep-data")] = False) -> None:
    """Remove it, and its volumes unless --keep-data is given."""
    SystemContainer(name).down(keep_data)


@container_app.command("restart")
def container_restart(name: str) -> None:
    """Shut systemd down and boot it again."""
    SystemContainer(name).restart()


@container_app.command("exec", context_settings=PASS_ON)
def container_exec(context: typer.Context, name: str) -> None:
    """Run a command in it."""
    replace_process(*SystemContainer(name).command(*context.args))


@container_app.command("status")
def container_status(name: str) -> None:
    """Print systemd's state; exit with 1 unless it is up."""
    state = SystemContainer(name).state
    print(f"{name}: {state}")
    raise typer.Exit(state not in ("running", "degraded"))


@contextmanager
def lock() -> Iterator[None]:
    """Refuse a second `make up` beside the first."""
    path = cache_dir() / "up.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError("another `make up` is running. Nothing was changed.", "wait until it ends.") from error
        yield
