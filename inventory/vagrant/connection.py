#!/usr/bin/env python3
"""Ansible inventory: how to reach the VM of the Vagrantfile, as `vagrant ssh-config` tells it.

Asked anew on each run, because address and port may change when the VM is started again.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

MACHINE = "vantage"
PROJECT = Path(__file__).resolve().parents[2]

# The VM is made and thrown away on this machine: its host key is new each time, and remembering it
# only causes alarms.
SSH_ARGUMENTS = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o LogLevel=ERROR"


def parse_ssh_config(text: str) -> dict[str, str]:
    """Return the options of the first host in an ssh_config, by lower-case name."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if len(words) < 2:
            continue
        options.setdefault(words[0].lower(), words[1])
    return options


def host_variables(options: dict[str, str]) -> dict[str, object]:
    """Return Ansible's connection variables for the options of an ssh_config."""
    variables: dict[str, object] = {
        "ansible_host": options["hostname"],
        "ansible_port": int(options.get("port", "22")),
        "ansible_user": options["user"],
        "ansible_ssh_common_args": SSH_ARGUMENTS,
    }
    if "identityfile" in options:
        variables["ansible_ssh_private_key_file"] = options["identityfile"]
    return variables


def ask_vagrant() -> dict[str, object]:
    """Return the connection variables of the VM; where there is none, a host name that says what to do.

    An inventory that fails makes Ansible print pages of warnings and go on without it; a name that does not
    resolve is shown as it is, in the one error that follows.
    """
    try:
        answer = subprocess.run(
            ["vagrant", "ssh-config", MACHINE],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return {"ansible_host": "vagrant-is-not-installed--see-docs-vm.md.invalid"}
    if answer.returncode != 0:
        print(answer.stderr.strip(), file=sys.stderr)
        return {"ansible_host": "no-vm-is-running--run-vagrant-up.invalid"}
    return host_variables(parse_ssh_config(answer.stdout))


def main() -> None:
    """Print the inventory as JSON, as Ansible expects it of a script called with --list."""
    hostvars = {MACHINE: ask_vagrant()}
    print(json.dumps({"all": {"hosts": [MACHINE]}, "_meta": {"hostvars": hostvars}}, indent=2))


if __name__ == "__main__":
    main()
