#!/usr/bin/env python3
"""Ansible inventory: connection variables of the Vagrantfile's VM, from `vagrant ssh-config`.

Runs `vagrant ssh-config` each time, because address and port may change when the VM restarts.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

MACHINE = "vantage"
PROJECT = Path(__file__).resolve().parents[2]

# The VM is often recreated with a new host key, so a stored key would only cause warnings.
SSH_ARGUMENTS = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o LogLevel=ERROR"


def connection_variables(ssh_config: str) -> dict[str, object]:
    """Return Ansible's connection variables for the first host in an ssh_config."""
    options: dict[str, str] = {}
    for line in ssh_config.splitlines():
        name, *values = shlex.split(line, comments=True) or [""]
        if values:
            options.setdefault(name.lower(), values[0])
    # A box with a password has no key.
    key = {"ansible_ssh_private_key_file": options["identityfile"]} if "identityfile" in options else {}
    return {
        "ansible_host": options["hostname"],
        "ansible_port": int(options["port"]),
        "ansible_user": options["user"],
        "ansible_ssh_common_args": SSH_ARGUMENTS,
        **key,
    }


def query_vagrant() -> dict[str, object]:
    """Return the connection variables of the VM; without a VM, a host name that says what to do.

    If an inventory fails, Ansible prints pages of warnings; a host name that does not resolve is in its one error.
    """
    command = ["vagrant", "ssh-config", MACHINE]
    try:
        answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return {"ansible_host": "vagrant-is-not-installed--see-docs-vm.md.invalid"}
    if answer.returncode != 0:
        print(answer.stderr.strip(), file=sys.stderr)
        return {"ansible_host": "no-vm-is-running--run-vagrant-up.invalid"}
    return connection_variables(answer.stdout)


if __name__ == "__main__":
    # As Ansible expects it of a script called with --list.
    print(json.dumps({"all": {"hosts": [MACHINE]}, "_meta": {"hostvars": {MACHINE: query_vagrant()}}}, indent=2))
