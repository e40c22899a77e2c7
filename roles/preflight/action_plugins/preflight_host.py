"""Runs the programs of this role on the host: gathers its state, and lets one run at a time change it.

A record on the host names the run that changes it. It is removed at the end of the playbook. A run that was killed leaves
its record: on the controller where it ran, the next run sees that its process is gone; elsewhere it expires. Each task
`vantage_files` renews it, and a service takes one at least, so it lasts longer than any build or download between two of them.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import shlex
import uuid
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

FILES = Path(__file__).resolve().parents[1] / "files"
# Not in /run/vantage, which uninstall.yml removes. Gone after a reboot, as the run is.
RUN_FILE = "/run/vantage-run.json"
LEASE_SECONDS = 2 * 3600


def controller() -> str:
    """What tells the processes of this controller from those of another one: its boot and its process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{platform.node()}/{uuid.getnode():x}"


def start_of(pid: int) -> str:
    """When the process started, in ticks since the boot; empty if it does not run, or where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def this_run() -> dict[str, Any]:
    """The run of ansible-playbook that this worker process belongs to."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    pid, where = os.getppid(), controller()
    start = start_of(pid)
    name = f"{user}@{platform.node()}"
    return {"id": f"{where}/{pid}/{start}", "controller": where, "pid": pid, "start": start, "who": name}


def is_over(run: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether a recorded run cannot change the host any more, or is this one."""
    if not run or run["id"] == own["id"] or run["age"] > LEASE_SECONDS:
        return True
    if run["controller"] != own["controller"]:
        return False
    try:
        os.kill(run["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    # Another process may have the number now. Where /proc hides it, the record expires.
    found = start_of(run["pid"])
    return bool(found) and found != run.get("start", found)


def run_problem(run: dict[str, Any], host: str) -> str:
    expires = max(1, round((LEASE_SECONDS - run["age"]) / 60))
    return (
        f"another run changes {host}: {run['who']} (pid {run['pid']}), since {run['since']}. Run again when it has ended. "
        f"If it was killed, remove {RUN_FILE} on {host}, or wait {expires} minutes. Nothing was changed."
    )


class ActionModule(ActionBase):
    """Argument: `step`. `gather` returns `state`; `begin` records this run on the host, `end` removes the record."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result, variables = super().run(tmp, task_vars), task_vars or {}
        step, host, own = self._task.args["step"], variables["inventory_hostname"], this_run()
        # Check mode changes nothing, so it may look at a host that another run changes.
        changes = not variables.get("ansible_check_mode", False)
        other: dict[str, Any] = {}
        if step == "gather":
            options = self._templar.template(variables.get("docker_daemon_options")) or {}
            given = {"run_file": RUN_FILE, "data_root": options.get("data-root", "")}
            state = self.program("gather_host_state.py", variables, json.dumps(given))
            # Before anything of this run can be refused.
            told = [f"{host}: {text}" for text in state["rollbacks"]]
            other, result = state["run"], result | {"state": state, "warnings": told}
        elif step == "begin" and changes:
            other = self.begin(own, variables)
        elif step == "end" and changes:
            self.program("record_run.py", variables, "end", RUN_FILE, own["id"])
        if changes and not is_over(other, own):
            return {"failed": True, "msg": run_problem(other, host)}
        return result | {"changed": False}

    def begin(self, own: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Records this run; returns the other one that is recorded, if it still runs."""
        record = ("begin", RUN_FILE, json.dumps(own))
        other = self.program("record_run.py", variables, *record)
        # Only the controller of the other run can tell whether its process is gone.
        if other and is_over(other, own):
            other = self.program("record_run.py", variables, *record, other["id"])
        return other

    def program(self, name: str, variables: dict[str, Any], *arguments: str) -> dict[str, Any]:
        """What a program of this role prints on the host, as JSON.

        It is read from standard input: one round trip, and no file on the host, where /tmp and /root may be noexec.
        """
        python = str(self._templar.template(variables.get("ansible_python_interpreter")) or "auto")
        if python.startswith("auto"):
            python = variables.get("ansible_facts", {}).get("discovered_interpreter_python") or "/usr/bin/python3"
        program, become = (FILES / name).read_text(encoding="utf-8"), self._connection.become
        # Where su asks for a password on a terminal, there is no standard input.
        by_input = self._connection.has_pipelining and (not become or become.pipelining)
        command = [*shlex.split(python), *(["-"] if by_input else ["-c", program]), *arguments]
        done = self._low_level_execute_command(shlex.join(command), in_data=program.encode() if by_input else None)
        try:
            return dict(json.loads(done["stdout"]))
        except ValueError:
            said = (done["stderr"] or done["stdout"]).strip()
            raise AnsibleActionFail(f"{name} failed on {variables['inventory_hostname']}: {said}") from None
