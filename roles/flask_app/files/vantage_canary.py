"""Starts a new version beside the running one, and explains why it does not answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path

import vantage_unit
from vantage_advice import Container, advise, find_cause
from vantage_snapshots import inspect, is_active, save_snapshot
from vantage_unit import Patience, Unit, UnitError, read_text

# A command of before_start that hangs would block the run for ever.
BEFORE_START_SECONDS = 900
# Lines of the log that are searched for the cause, and shown.
SEARCHED_LINES, SHOWN_LINES = 200, 15


def container_log(container: str) -> str:
    """The end of what a container printed to stdout and stderr, in the order of its lines."""
    # Not vantage_unit.run, which keeps the two apart.
    argv = ["docker", "logs", f"--tail={SEARCHED_LINES}", container]
    output = subprocess.run(
        argv, check=False, encoding="utf-8", errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # Without the colours of a terminal.
    return re.sub(r"\x1b\[[0-9;]*m", "", output.stdout).rstrip()


def last_lines(log: str) -> str:
    return "\n".join(line[:600] for line in log.splitlines()[-SHOWN_LINES:]) or "(none)"


def describe_container(unit: Unit) -> Container:
    """The directory the container starts in and its user."""
    folder = vantage_unit.run("docker", "image", "inspect", "--format", "{{.Config.WorkingDir}}", unit.image)
    return Container(folder.stdout.strip() or "/", option(unit, "user"))


def option(unit: Unit, name: str) -> str:
    start = f"--{name}="
    return next((word.removeprefix(start) for word in unit.docker_arguments if word.startswith(start)), "")


def explain_failure(unit: Unit, what: str, problem: str, log: str, *further: str) -> str:
    """What failed and where, the last lines of the log, and then what to do."""
    container = describe_container(unit)
    cause, advice = find_cause(log, container.folder), advise(log, container)
    head = f"{what} failed: {problem}" + (f"\n{cause}" if cause else "")
    remedies = [advice] if advice else [text for text in further if text]
    return "\n".join([head, f"Last lines of its log:\n{last_lines(log)}", *remedies])


# Containers beside the running version ---------------------------------------------------------------------------------


def canary_name(service: str) -> str:
    return f"vantage-{service}-canary"


def canary_folder(service: str) -> Path:
    """The directory of the canary's data. A fixed name: what a killed run left is found and removed by the next."""
    return vantage_unit.CACHE / "canary" / service


def split_at_image(unit: Unit, words: list[str]) -> tuple[list[str], list[str]]:
    """The options of `docker run`, and what follows them: the image and the arguments of the app, which may look alike."""
    position = words.index(unit.image) if unit.image in words else len(words)
    return words[:position], words[position:]


def side_arguments(unit: Unit, name: str) -> list[str]:
    """Arguments of `docker run` for the same container under another name, without host port and network alias."""
    dropped = {"--rm", "--publish", "--network-alias", "--log-driver"}
    options, program = split_at_image(unit, unit.docker_arguments)
    options = [word for word in options if word.partition("=")[0] not in dropped]
    options = [f"--name={name}" if word.startswith("--name=") else word for word in options]
    return ["--detach", "--log-driver=local", *options, *program]


def canary_arguments(unit: Unit, data: Path) -> list[str]:
    """`side_arguments` without the data of the running version.

    Two containers on one data folder can corrupt an SQLite file, so every writable volume is an empty folder in `data`.
    """
    arguments, volumes, user = [], 0, option(unit, "user")
    options, program = split_at_image(unit, side_arguments(unit, canary_name(unit.service)))
    for word in options:
        name, _, value = word.partition("=")
        if name == "--volume" and "ro" not in "".join(value.split(":", 2)[2:3]).split(","):
            folder = data / str(volumes)
            # Made once, for the command before the start and for the canary.
            if not folder.exists():
                folder.mkdir(mode=0o750)
                if user:
                    uid, gid = user.split(":")
                    shutil.chown(folder, int(uid), int(gid))
            word, volumes = f"--volume={folder}:{value.split(':')[1]}", volumes + 1
        arguments.append(word)
    return [*arguments, *program]


def remove_container(name: str) -> None:
    vantage_unit.run("docker", "rm", "--force", "--volumes", name)


def run_before_start(unit: Unit, arguments: list[str], what: str) -> None:
    """Runs the app's command before_start with the arguments of its container; raises UnitError if it fails."""
    name = f"vantage-{unit.service}-before-start"
    given, _ = split_at_image(unit, arguments)
    options = [word for word in given if word.partition("=")[0] not in {"--entrypoint", "--name"}]
    # Its image's own command and arguments belong to the entrypoint that a shell replaces.
    shell = [f"--name={name}", "--entrypoint=/bin/sh", unit.image, "-c", unit.before_start]
    try:
        remove_container(name)
        started = vantage_unit.run("docker", "run", *options, *shell)
        if started.returncode:
            raise UnitError(f"{what} failed: docker run: {started.stderr.strip()}")
        try:
            status = vantage_unit.run("docker", "wait", name, timeout=BEFORE_START_SECONDS).stdout.strip()
        except subprocess.TimeoutExpired:
            status = f"none within {BEFORE_START_SECONDS} s"
        if status != "0":
            problem = f"`{unit.before_start}` ended with status {status}."
            fix = "Correct before_start, or what it needs: its environment, secrets and data are those of the app."
            raise UnitError(explain_failure(unit, what, problem, container_log(name), fix))
    finally:
        remove_container(name)


# The canary -----------------------------------------------------------------------------------------------------------


def wait_for_canary(unit: Unit) -> str:
    """Empty when the container is ready in time, otherwise the reason and the fix."""
    container, port = canary_name(unit.service), unit.ports[0]["container"]
    path = urllib.parse.urlsplit(unit.ready_url)._replace(scheme="", netloc="").geturl() or "/"
    begin, patience = time.monotonic(), Patience(port)
    while True:
        state = inspect(container, "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Pid}}").split()
        if state[:1] not in (["running"], ["created"]):
            killed = " Out of memory: the kernel killed it at its memory limit." if state[2:3] == ["true"] else ""
            return f"its process ended with status {state[1] if state[1:] else '?'}.{killed}"
        address = inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        answer = vantage_unit.ask(f"http://{address}:{port}{path}", timeout=5)
        problem = vantage_unit.problem_of(answer, unit.ready_below)
        if not problem:
            return ""
        hopeless = patience.verdict(answer, state[3].strip)
        if hopeless or time.monotonic() - begin > unit.ready_seconds:
            if answer.status:
                return f"GET {path} {hopeless or problem}"
            return hopeless or f"not ready after {unit.ready_seconds:.0f} s."
        time.sleep(0.3)


def explain_silence(unit: Unit) -> str:
    """Why the canary's port is closed; empty if its process ended or listens there."""
    pid = inspect(canary_name(unit.service), "{{.State.Pid}}")
    if pid in ("", "0"):
        return ""
    return vantage_unit.explain_closed_port(vantage_unit.listening_addresses(pid), unit.ports[0]["container"])


def needs_canary(unit: Unit) -> bool:
    # Where no app runs there is nothing to protect, and apps that depend on each other could not start one by one.
    others = [other.service for other in vantage_unit.installed_units() if other.owner == unit.owner]
    return unit.settings.get("Canary") != "no" and any(map(is_active, others))


def run_canary(service: str, candidate: Path, check: bool = False) -> None:
    """Starts what the unit file describes beside the running version; raises UnitError unless it answers in time."""
    unit = Unit(service, read_text(candidate))
    if check:
        print(service, "canary")
        return
    save_snapshot(service)
    if not needs_canary(unit):
        return
    container, data = canary_name(service), canary_folder(service)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o755, parents=True)
    what = f"the canary of {service} ({unit.image})"
    try:
        remove_container(container)
        arguments = canary_arguments(unit, data)
        empty = ""
        if any(data.iterdir()):
            empty = (
                "The canary never sees the app's data: its data directories are empty. If the app needs tables or files "
                "at its start, set before_start to the command that creates them, health_path to a path that needs "
                "none, or trial to false."
            )
        if unit.before_start:
            run_before_start(unit, arguments, f"before_start of {service} ({unit.image}), with empty data,")
        started = vantage_unit.run("docker", "run", *arguments)
        if started.returncode:
            raise UnitError(f"{what} failed: docker run: {started.stderr.strip()}")
        if problem := wait_for_canary(unit):
            is_explained = any(word in problem for word in ("container_port", "health_path", "0.0.0.0"))
            # After the log: it mostly says why nothing listens.
            remedies = [] if is_explained else [explain_silence(unit), empty]
            raise UnitError(explain_failure(unit, what, problem, container_log(container), *remedies))
    finally:
        remove_container(container)
        shutil.rmtree(data, ignore_errors=True)
