"""A system container: Debian with systemd as PID 1 and its own Docker, where there is no VM. `make up` and molecule use it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vantage_tools.errors import UserError
from vantage_tools.images import cli as images
from vantage_tools.paths import cache_dir
from vantage_tools.process import output, succeeds
from vantage_tools.vm import engine
from vantage_tools.vm.ports import PortMapping
from vantage_tools.waiting import wait_until

LABEL = "vantage.system-container"
BOOT_SECONDS = 120
CGROUPS = Path("/sys/fs/cgroup")
# On a volume the inner Docker can use overlay2, and Docker 29 keeps its layers with containerd.
VOLUMES = {"docker": "/var/lib/docker", "containerd": "/var/lib/containerd", "journal": "/var/log/journal"}


def image_name(system: str) -> str:
    """Return the name in images.yml of a system's image."""
    return "system" if system == "debian12" else f"system-{system}"


class SystemContainer:
    """One system container with its three volumes; ports are published on 127.0.0.1 only.

    VANTAGE_SYSTEM names the system (default: debian12), VANTAGE_SYSTEM_IMAGE an image of the user with systemd as its
    command, which must be in the engine.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.system = os.environ.get("VANTAGE_SYSTEM") or "debian12"
        self.given_image = os.environ.get("VANTAGE_SYSTEM_IMAGE")
        self.image = self.given_image or f"vantage/system:{self.system}"
        self.volumes = {f"vantage-system-{name}-{part}": path for part, path in VOLUMES.items()}

    @property
    def exists(self) -> bool:
        return succeeds("docker", "container", "inspect", self.name)

    @property
    def is_running(self) -> bool:
        return self.exists and self._inspect("{{.State.Running}}") == "true"

    @property
    def state(self) -> str:
        """systemd's state: running, degraded, starting, …; stopped or absent without it."""
        if not self.is_running:
            return "stopped" if self.exists else "absent"
        command = self.command("systemctl", "is-system-running")
        return subprocess.run(command, text=True, capture_output=True, check=False).stdout.strip() or "unknown"

    def command(self, *argv: str) -> list[str]:
        """Return the command that runs a program in the container; without a terminal, for its output is read."""
        return ["docker", "exec", self.name, *argv]

    def terminal_command(self, *argv: str) -> list[str]:
        """Return the command that runs a program in the container on the user's terminal."""
        terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        return ["docker", "exec", "--interactive", *terminal, self.name, *argv]

    def up(self, publish: Iterable[PortMapping] = (), network: str = "", address: str = "") -> None:
        """Create the container, which publishes the ports, or start the one that exists; wait for systemd."""
        engine.ensure_engine()
        if not self.given_image:
            # Loads nothing if the engine has it.
            images.load_images([image_name(self.system)])
        if not self.exists:
            self._create(publish, [f"--network={network}", f"--ip={address}"] if network else [])
        elif self._require_ours() and not self.is_running:
            output("docker", "start", self.name)
        self._wait_for_systemd()

    def down(self) -> None:
        if self.exists and self._require_ours():
            output("docker", "rm", "--force", self.name)
        output("docker", "volume", "rm", "--force", *self.volumes)

    def restart(self) -> None:
        if not self.is_running:
            raise UserError(f"{self.name} is {self.state}.", f"vantage container up {self.name}")
        output("docker", "restart", self.name)
        self._wait_for_systemd()

    def published(self) -> dict[int, int]:
        """Return the port of this machine for each TCP port of the container that is published."""
        pairs = self._inspect(
            "{{range $p, $at := .HostConfig.PortBindings}}{{range $at}}{{$p}}={{.HostPort}} {{end}}{{end}}"
        )
        return {int(port): int(host) for port, host in re.findall(r"(\d+)/tcp=(\d+)", pairs)}

    def _inspect(self, template: str) -> str:
        return output("docker", "container", "inspect", "--format", template, self.name).strip()

    def _require_ours(self) -> bool:
        if self._inspect(f'{{{{index .Config.Labels "{LABEL}"}}}}') != "1":
            raise UserError(f"container {self.name} exists and was not made by vantage.", "choose another name.")
        return True

    def _create(self, publish: Iterable[PortMapping], network: Iterable[str]) -> None:
        archives = cache_dir() / "images"
        archives.mkdir(parents=True, exist_ok=True)
        config = json.loads(output("docker", "image", "inspect", "--format", "{{json .Config}}", self.image))
        arguments = [
            *("--detach", "--pull=never", f"--name={self.name}", f"--hostname={self.name}", f"--label={LABEL}=1"),
            *self._privileges(),
            *("--cgroupns=host", f"--volume={self._cgroups(config)}:/sys/fs/cgroup:rw"),
            *("--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec"),
            "--env=container=docker",
            *("--stop-signal=SIGRTMIN+3", "--stop-timeout=90"),
            *(f"--volume={volume}:{path}" for volume, path in self.volumes.items()),
            f"--volume={archives}:/var/cache/vantage/images:ro",
            *(f"--publish=127.0.0.1:{port.host}:{port.guest}" for port in publish),
            *network,
        ]
        init = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
        # Containers in it bind / with its mounts, which needs a shared root. A container's manager has to share it.
        share = ["--entrypoint=/bin/sh", self.image, "-c", 'mount --make-rshared / && exec "$@"', "sh", *init]
        try:
            output("docker", "run", *arguments, *share)
        except subprocess.CalledProcessError as error:
            succeeds("docker", "rm", "--force", self.name)
            reason = "\n".join(line for line in error.stderr.splitlines() if line and "run --help" not in line)
            raise UserError(
                f"cannot start container {self.name}: {reason}",
                "if a port is in use, stop the program that has it or choose another one with VANTAGE_PORTS.",
            ) from error

    def _privileges(self) -> list[str]:
        probe = ("docker", "run", "--rm", "--pull=never", "--privileged", "--network=none", "--entrypoint=/bin/true")
        if succeeds(*probe, self.image):
            return ["--privileged"]
        # An engine without CAP_SYS_RESOURCE (a sandbox) refuses --privileged. This grants the rest.
        options = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
        return ["--cap-add=ALL", "--cap-drop=SYS_RESOURCE", *(f"--security-opt={option}" for option in options)]

    def _cgroups(self, config: dict[str, Any]) -> Path:
        """Return the cgroup file system for the container: v2 alone for a systemd that refuses v1 (256 and later)."""
        needs_v2 = (config.get("Labels") or {}).get("vantage.cgroup") == "2"
        if not needs_v2 or platform.system() != "Linux" or (CGROUPS / "cgroup.controllers").exists():
            return CGROUPS
        # The machine boots on a hybrid host's v2 and runs containers, without limits: those controllers are in v1.
        if (CGROUPS / "unified").is_dir():
            return CGROUPS / "unified"
        raise UserError(
            f"systemd in {self.image} needs cgroup v2, and this host has only v1.",
            "boot the host with systemd.unified_cgroup_hierarchy=1, or use a VM: make test-vm",
        )

    def _wait_for_systemd(self) -> None:
        wait_until(lambda: self.state in ("running", "degraded", "stopped"), BOOT_SECONDS, pause=0.2)
        if (state := self.state) == "running":
            return
        print(f"container: systemd in {self.name} is {state}", file=sys.stderr)
        for command in (
            self.command("systemctl", "--failed", "--no-legend", "--plain"),
            self.command("journalctl", "-b", "-p", "warning", "--no-pager", "-n", "15"),
            ["docker", "logs", "--tail", "15", self.name],
        ):
            subprocess.run(command, check=False, stdout=sys.stderr, stdin=subprocess.DEVNULL)
        if state != "degraded":
            raise UserError(f"systemd did not start in {self.name} within {BOOT_SECONDS} s: {state}.", "see above.")


def write_inventory(folder: Path, name: str, variables: Mapping[str, Any]) -> None:
    """Write an inventory with the container in both groups, for images that are in the cache."""
    group_vars = folder / "group_vars/all"
    group_vars.mkdir(parents=True)
    (folder / "hosts.yml").write_text(json.dumps({group: {"hosts": {name: None}} for group in ("app", "monitoring")}))
    (group_vars / "main.yml").write_text(json.dumps(variables))
    (group_vars / "images.yml").write_text((cache_dir() / "images/vars.yml").read_text())
