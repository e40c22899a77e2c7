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
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT, cache_dir
from vantage_tools.process import IMAGES, output, replace_process, run, succeeds
from vantage_tools.vm import engine
from vantage_tools.vm.cli import PASS_ON

Document = Mapping[str, Any]

INVENTORY = Path("inventory/compose")
PLAYBOOK = ("ansible-playbook", "-i", INVENTORY, "playbooks/compose.yml")
# The user's own variables for this machine; never committed.
SETTINGS = ROOT / "compose/local.yml"
SECRETS = ROOT / "compose/secrets"
PASSWORD = SECRETS / "grafana/admin_password"
# The file of this machine, where it differs from the committed one.
BUILD = Path("build/compose")
LOADED_IMAGES = ("prometheus", "loki", "promtail", "jaeger", "alertmanager", "node_exporter", "app", "grafana")
# The service that prepares the volumes and ends.
PREPARE = "prepare"
PROJECT_LABEL = "com.docker.compose.project"
READY_SECONDS = 120
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

app = typer.Typer(help="docker-compose.yml on this machine, without a VM.", no_args_is_help=True)


@app.command()
def up() -> None:
    """Start the services, wait until they are ready, and verify them."""
    engine.ensure_engine()
    get_images()
    # A strict umask would keep the containers' users from reading these.
    readable = [path for path in ("compose/config", BUILD, "roles/grafana/files/dashboards") if (ROOT / path).exists()]
    run("chmod", "-R", "a+rX", *readable)
    wanted = document()
    # Checked before the start: Compose would leave some services behind.
    if in_use := ports_in_use(wanted):
        raise UserError(
            "\n".join([*in_use, "Nothing was started."]),
            "stop what uses the ports (a VM: make down), or set others in compose/local.yml, see docs/compose.md.",
        )
    run(*compose("up", "--detach", "--remove-orphans"), env=environment())
    if not_ready := wait_until_ready(ready_urls(wanted), READY_SECONDS):
        raise UserError(
            "\n".join(f"{name} is not ready after {READY_SECONDS} s: {problem}" for name, problem in not_ready.items()),
            ".venv/bin/vantage compose run logs SERVICE prints its log.",
        )
    if container := ask("ps", "--quiet", "grafana").strip() if "grafana" in wanted["services"] else "":
        # Grafana reads the file at its first start only.
        url = _origin(ready_urls(wanted)["grafana"])
        run(sys.executable, "roles/grafana/files/grafana_password.py", url, PASSWORD, container)
    verify()
    print("", *(f"  {name:<14} {url}/" for name, url in endpoints(wanted).items()), "", sep="\n")
    if "grafana" in wanted["services"]:
        print("  Grafana's user is admin, its password: make compose-password")
    print("  Logs: .venv/bin/vantage compose run logs storefront")
    print("  Visitors: .venv/bin/vantage compose run --profile traffic up --detach")
    print("  make compose-down keeps the data; .venv/bin/vantage compose run down --volumes deletes it.")


@app.command()
def verify() -> None:
    """Send one request through the services and find it as metric, log line and trace."""
    services = list(document()["services"])
    states = ask("ps", "--all", "--format", "{{.Service}} {{.State}} {{.ExitCode}}")
    if stopped := not_running(services, states):
        raise UserError(
            f"services of docker-compose.yml are not running: {' '.join(stopped)}.",
            "make compose-up; .venv/bin/vantage compose run logs SERVICE prints a service's log.",
        )
    variables = [word for file in extra_vars() for word in ("-e", f"@{file}")]
    run("ansible-playbook", "-i", INVENTORY, *variables, "playbooks/verify.yml")


@app.command()
def password() -> None:
    """Print Grafana's admin password."""
    if not PASSWORD.exists():
        raise UserError("Grafana has no password yet.", "make compose-up")
    print(PASSWORD.read_text(encoding="utf-8").strip())


@app.command()
def down() -> None:
    """Stop and remove the containers; their data stays."""
    run(*compose("--profile", "*", "down"), env=environment())


@app.command("run", context_settings=PASS_ON)
def run_compose(context: typer.Context) -> None:
    """Run Compose itself: vantage compose run ps."""
    os.environ.update(environment())
    replace_process(*compose(*context.args))


@app.command()
def render() -> None:
    """Write the file and the secrets for this machine."""
    render_here()


# --- Which file, which program ------------------------------------------------------------------------------------


def compose(*arguments: str) -> list[str]:
    """Return the command line of Compose for this machine's file."""
    files: list[str] = []
    if extra_vars():
        files = [f"--file={ROOT / BUILD / 'docker-compose.yml'}"]
        # With --file, Compose does not read the user's own override by itself.
        own = ROOT / "docker-compose.override.yml"
        files += [f"--file={own}"] if own.exists() else []
    return [*program(), f"--project-directory={ROOT}", *files, *arguments]


@functools.cache
def program() -> tuple[str, ...]:
    """Return Docker's plugin, or the program made of its published Go module."""
    if succeeds("docker", "compose", "version"):
        return ("docker", "compose")
    return (output(*IMAGES, "tool", "compose").strip(),)


@functools.cache
def environment() -> dict[str, str]:
    """Return the environment for Compose: Promtail mounts the engine's folder of container logs."""
    return os.environ | {"VANTAGE_DOCKER_ROOT": output("docker", "info", "--format", "{{.DockerRootDir}}").strip()}


def ask(*arguments: str) -> str:
    """Return what Compose prints."""
    done = subprocess.run(compose(*arguments), env=environment(), check=True, text=True, capture_output=True)
    return done.stdout


def document() -> Document:
    """Return the file as Compose resolves it."""
    resolved: Document = json.loads(ask("config", "--format", "json"))
    return resolved


def extra_vars() -> list[Path]:
    """Return the files of variables over the inventory's: the names of made images, then the user's settings."""
    made = cache_dir() / "images/vars.yml"
    return [path for path in ([made] if _made_images().exists() else []) + [SETTINGS] if path.exists()]


def get_images() -> None:
    """Pull the images, or make them of published packages where no registry answers; render the file for them."""
    if not _made_images().exists():
        render_here()
        if all(succeeds("docker", "image", "inspect", image) for image in ask("config", "--images").split()):
            return
        if not subprocess.run(
            compose("pull", "--quiet", "--ignore-buildable"), env=environment(), check=False
        ).returncode:
            return
        if platform.system() != "Linux":
            raise UserError("cannot pull the images, and they can be made on Linux only.", "check the network.")
        print("compose: no registry answers; making the images of published packages", file=sys.stderr)
    run(*IMAGES, "get")
    # Grafana cannot be made; the rest runs without it.
    has_grafana = (cache_dir() / "images/grafana.tar.gz").exists()
    run(*IMAGES, "load", *(name for name in LOADED_IMAGES if name != "grafana" or has_grafana))
    _made_images().touch()
    render_here()


def _made_images() -> Path:
    return cache_dir() / "compose-images-made"


# --- What Compose says --------------------------------------------------------------------------------------------


def not_running(services: Sequence[str], states: str) -> list[str]:
    """Return the services that do not run, by lines of `SERVICE STATE EXIT_CODE`."""
    healthy = {tuple(line.split()[:2]) for line in states.splitlines()} - {(PREPARE, "exited")}
    if f"{PREPARE} exited 0" in states.splitlines():
        healthy.add((PREPARE, "running"))
    return [name for name in services if (name, "running") not in healthy]


def published_ports(wanted: Document) -> list[tuple[str, str, int]]:
    """Return service, address and port of everything that is published; Docker finds a free port of a range itself."""
    return [
        (name, entry.get("host_ip", "0.0.0.0"), int(entry["published"]))
        for name, service in wanted["services"].items()
        for entry in service.get("ports", [])
        if str(entry.get("published", "")).isdigit()
    ]


def ports_in_use(wanted: Document) -> list[str]:
    """Return a message for each port that another program uses."""
    return [
        f"{address}:{port} ({name}) is already in use by {user}."
        for name, address, port in published_ports(wanted)
        if not _is_free(address, port) and (user := _user_of_port(port, wanted["name"]))
    ]


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # A connection in TIME_WAIT does not block the port; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _user_of_port(port: int, project: str) -> str:
    """Return the container or program that uses the port; empty for a container of this project."""
    shown = output(
        "docker", "ps", f"--filter=publish={port}", f'--format={{{{.Names}}}}|{{{{.Label "{PROJECT_LABEL}"}}}}'
    )
    containers = [line.split("|") for line in shown.splitlines() if line]
    if any(owner == project for _, owner in containers):
        return ""
    return f"container {containers[0][0]}" if containers else "a program outside Docker"


def ready_urls(wanted: Document) -> dict[str, str]:
    """Return each service's readiness URL."""
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
    deadline = time.monotonic() + seconds
    waiting = dict(urls)
    while True:
        problems = {name: f"{url} {problem}" for name, url in waiting.items() if (problem := _probe(url))}
        for name in set(waiting) - set(problems):
            print(f"{name} is ready")
            del waiting[name]
        if not waiting or time.monotonic() > deadline:
            return problems
        time.sleep(0.5)


def _probe(url: str) -> str:
    try:
        with OPENER.open(url, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"answers {error.code}: {error.read(200).decode(errors='replace').strip()}"
    except OSError as error:
        return str(error)


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


# --- Rendering ----------------------------------------------------------------------------------------------------


def rendered_files() -> dict[Path, str]:
    """Return the committed docker-compose.yml and its config."""
    with tempfile.TemporaryDirectory() as folder:
        output(*PLAYBOOK, "-e", f"vantage_compose_dir={folder}")
        written = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {ROOT / path.relative_to(folder): path.read_text(encoding="utf-8") for path in written}


def render_here() -> None:
    """Write this machine's file, config and secrets."""
    variables = {"vantage_compose_write_secrets": "true"}
    if extra_vars():
        variables |= {
            "vantage_compose_file": str(BUILD / "docker-compose.yml"),
            "vantage_compose_config": str(BUILD / "config"),
        }
    files = [word for file in extra_vars() for word in ("-e", f"@{file}")]
    run(*PLAYBOOK, "-e", json.dumps(variables), *files)
