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

# The VM is made and thrown away on this machine: its host key is new each time, and remembering it only causes alarms.
SSH_ARGUMENTS = (
    "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o LogLevel=ERROR"
)


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


def main() -> int:
    """Print the inventory as JSON; return the exit status."""
    try:
        answer = subprocess.run(
            ["vagrant", "ssh-config", MACHINE], cwd=PROJECT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        print("vagrant is not installed. Fix: install it, or use another inventory (docs/vm.md).", file=sys.stderr)
        return 1
    if answer.returncode != 0:
        print(f"No VM to reach. Fix: run `vagrant up` first. Vagrant says:\n{answer.stderr.strip()}", file=sys.stderr)
        return 1
    variables = host_variables(parse_ssh_config(answer.stdout))
    print(json.dumps({"all": {"hosts": [MACHINE]}, "_meta": {"hostvars": {MACHINE: variables}}}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
