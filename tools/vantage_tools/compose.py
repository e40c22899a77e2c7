"""docker-compose.yml on this machine, without a VM: `vantage compose up|verify|password|down`."""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from vantage_tools.errors import UserError
from vantage_tools.images import cli as images
from vantage_tools.paths import ROOT, cache_dir
from vantage_tools.process import output, replace_process, run, succeeds
from vantage_tools.vm import engine
from vantage_tools.vm.cli import PASS_ON
from vantage_tools.waiting import url_problem, wait_until

Document = Mapping[str, Any]

INVENTORY = Path("inventory/compose")
PLAYBOOK = ("ansible-playbook", "-i", INVENTORY, "playbooks/compose.yml")
# The user's own variables for this machine; never committed.
SETTINGS = ROOT / "compose/local.yml"
PASSWORD = ROOT / "compose/secrets/grafana/admin_password"
# The file of this machine, where it differs from the committed one.
BUILD = Path("build/compose")
READY_SECONDS = 120

app = typer.Typer(help="Run docker-compose.yml on this machine, without a VM.", no_args_is_help=True)


@app.command()
def up() -> None:
    """Start the services, wait until they are ready, verify them."""
    engine.ensure_engine()
    get_images()
    # A strict umask would keep the containers' users from reading these.
    readable = [path for path in ("compose/config", BUILD, "roles/grafana/files/dashboards") if (ROOT / path).exists()]
    run("chmod", "-R", "a+rX", *readable)
    wanted = document()
    # Checked before the start: Compose would leave some services behind. What runs already has its own ports.
    running = running_services()
    stopped = {name: service for name, service in wanted["services"].items() if name not in running}
    if in_use := ports_in_use({"services": stopped}):
        raise UserError(
            "\n".join([*in_use, "Nothing was started."]),
            "stop what uses the ports (a VM: make down), or set others in compose/local.yml, see docs/compose.md.",
        )
    run(*compose("up", "--detach", "--remove-orphans"))
    if not_ready := wait_until_ready(ready_urls(wanted), READY_SECONDS):
        raise UserError(
            "\n".join(f"{name} is not ready after {READY_SECONDS} s: {problem}" for name, problem in not_ready.items()),
            ".venv/bin/vantage compose run logs SERVICE prints its log.",
        )
    has_grafana = "grafana" in wanted["services"]
    if has_grafana and (container := output(*compose("ps", "--quiet", "grafana")).strip()):
        # Grafana reads the file at its first start only.
        url = _origin(ready_urls(wanted)["grafana"])
        run(sys.executable, "roles/grafana/files/grafana_password.py", url, PASSWORD, container)
    verify()
    print("", *(f"  {name:<14} {url}/" for name, url in endpoints(wanted).items()), "", sep="\n")
    if has_grafana:
        print("  Grafana's user is admin, its password: make compose-password")
    print("  Logs: .venv/bin/vantage compose run logs storefront")
    print("  Traffic: .venv/bin/vantage compose run --profile traffic up --detach")
    print("  make compose-down keeps the data; .venv/bin/vantage compose run down --volumes deletes it.")


@app.command()
def verify() -> None:
    """Send one request and find it as metric, log line and trace."""
    # Another stack may answer at their ports.
    if stopped := sorted(expected_services(document()) - set(running_services())):
        raise UserError(
            f"services of docker-compose.yml are not running: {' '.join(stopped)}.",
            "make compose-up; .venv/bin/vantage compose run logs SERVICE prints a service's log.",
        )
    run("ansible-playbook", "-i", INVENTORY, *extra_vars_options(), "playbooks/verify.yml")


@app.command()
def password() -> None:
    """Print Grafana's admin password."""
    if not PASSWORD.exists():
        raise UserError("Grafana has no password yet.", "make compose-up")
    print(PASSWORD.read_text(encoding="utf-8").strip())


@app.command()
def down() -> None:
    """Stop and remove the containers; their data stays."""
    run(*compose("--profile", "*", "down"))


@app.command("run", context_settings=PASS_ON)
def run_compose(context: typer.Context) -> None:
    """Run Docker Compose itself, for example `vantage compose run ps`."""
    replace_process(*compose(*context.args))


@app.command()
def render() -> None:
    """Write the file, its config and the secrets for this machine."""
    variables = {"vantage_compose_write_secrets": "true"}
    if extra_vars():
        variables |= {
            "vantage_compose_file": str(BUILD / "docker-compose.yml"),
            "vantage_compose_config": str(BUILD / "config"),
        }
    run(*PLAYBOOK, "-e", json.dumps(variables), *extra_vars_options())


def rendered_files() -> dict[Path, str]:
    """Return the committed docker-compose.yml and its config."""
    with tempfile.TemporaryDirectory() as folder:
        output(*PLAYBOOK, "-e", f"vantage_compose_dir={folder}")
        written = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {ROOT / path.relative_to(folder): path.read_text(encoding="utf-8") for path in written}


def compose(*arguments: str) -> list[str]:
    """Return the command line of Compose for this machine's file."""
    # With --file, Compose does not read the user's own override by itself.
    files = [ROOT / BUILD / "docker-compose.yml", ROOT / "docker-compose.override.yml"] if extra_vars() else []
    # Before the first `up` with settings of the user, the committed file is the one that runs.
    options = [f"--file={file}" for file in files if file.exists() and files[0].exists()]
    return [*program(), f"--project-directory={ROOT}", *options, *arguments]


@functools.cache
def program() -> tuple[str, ...]:
    """Return Docker's plugin, or the program made of its published Go module, which both get the engine's folder."""
    # Promtail mounts the containers' logs from there.
    os.environ["VANTAGE_DOCKER_ROOT"] = output("docker", "info", "--format", "{{.DockerRootDir}}").strip()
    if succeeds("docker", "compose", "version"):
        return ("docker", "compose")
    if not any((cache_dir() / "tools").glob("compose-*")):
        print(
            "compose: building Compose from its Go module, because `docker compose` is not installed", file=sys.stderr
        )
        print("compose: this takes some minutes, the first time only", file=sys.stderr)
    return (str(images.make_tool("compose")),)


def document() -> Document:
    resolved: Document = json.loads(output(*compose("config", "--format", "json")))
    return resolved


def extra_vars() -> list[Path]:
    """Return the files of variables over the inventory's: the names of made images, then the user's settings."""
    made = cache_dir() / "images/vars.yml"
    return [path for path in ([made] if _made_images().exists() else []) + [SETTINGS] if path.exists()]


def extra_vars_options() -> list[str]:
    return [word for file in extra_vars() for word in ("-e", f"@{file}")]


def get_images() -> None:
    """Pull the images, or make them of published packages where no registry answers; render the file for them."""
    if not _made_images().exists():
        render()
        pull = compose("pull", "--quiet", "--ignore-buildable", "--policy=missing")
        if not subprocess.run(pull, check=False).returncode:
            return
        if platform.system() != "Linux":
            raise UserError("cannot pull the images, and they can be built on Linux only.", "check the network.")
        print("compose: no registry answers; building the images from published packages", file=sys.stderr)
    # Grafana cannot be made; the rest runs without it.
    images.load_images()
    _made_images().touch()
    render()


def _made_images() -> Path:
    return cache_dir() / "compose-images-made"


def expected_services(wanted: Document) -> set[str]:
    """Return the services that run on: all but those that others wait for until they have ended."""
    awaited = [service.get("depends_on", {}) for service in wanted["services"].values()]
    ended = {
        name for one in awaited for name, how in one.items() if how["condition"] == "service_completed_successfully"
    }
    return set(wanted["services"]) - ended


def running_services() -> list[str]:
    return output(*compose("ps", "--services", "--status=running")).split()


def ports_in_use(wanted: Document) -> list[str]:
    """Return a message for each port that another program uses; Docker finds a free port of a range itself."""
    problems = []
    for name, service in wanted["services"].items():
        for entry in service.get("ports", []):
            address, port = entry.get("host_ip", "0.0.0.0"), str(entry.get("published", ""))
            if port.isdigit() and not _is_free(address, int(port)):
                containers = output("docker", "ps", f"--filter=publish={port}", "--format={{.Names}}").split()
                user = f"container {containers[0]}" if containers else "a program outside Docker"
                problems.append(f"{address}:{port} ({name}) is already in use by {user}.")
    return problems


def _is_free(address: str, port: int) -> bool:
    try:
        socket.create_server((address, port)).close()
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


def ready_urls(wanted: Document) -> dict[str, str]:
    urls = {name: service.get("labels", {}).get("vantage.ready") for name, service in wanted["services"].items()}
    return {name: url for name, url in urls.items() if url}


def endpoints(wanted: Document) -> dict[str, str]:
    """Return each service's address for a person: its first published port, which need not be the readiness port."""
    found = {}
    for name, url in ready_urls(wanted).items():
        ports = wanted["services"][name].get("ports", [])
        address = f"{ports[0].get('host_ip', '0.0.0.0')}:{ports[0]['published']}" if ports else ""
        found[name] = "http://" + address.replace("0.0.0.0", "127.0.0.1") if ports else _origin(url)
    return found


def wait_until_ready(urls: Mapping[str, str], seconds: float) -> dict[str, str]:
    """Return what is wrong with each service that is not ready in time."""
    problems = dict(urls)

    def all_ready() -> bool:
        for name in [*problems]:
            if problem := url_problem(urls[name]):
                problems[name] = f"{urls[name]} {problem}"
            else:
                print(f"{name} is ready")
                del problems[name]
        return not problems

    wait_until(all_ready, seconds, pause=0.5)
    return problems


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])
