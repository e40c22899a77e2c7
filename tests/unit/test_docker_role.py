"""Which failures of the role docker check mode may pass over: those of a bare host, where nothing is installed yet."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.template import trust_as_template
from rendering import ROLES, Host, load


def fails(file: str, register: str, result: dict[str, Any], check: bool) -> bool:
    """Whether the task with this register fails with this result."""
    (task,) = (task for task in load(ROLES / f"docker/tasks/{file}.yml") if task.get("register") == register)
    host = Host("docker", **{"ansible_check_mode": check, register: result})
    return bool(host.value(trust_as_template("{{ " + task["failed_when"] + " }}")))


@pytest.mark.parametrize("noise", ["", "sudo: unable to resolve host vm: Name or service not known\r\n"])
@pytest.mark.parametrize("engine", ["", "engine=dockerd\r\n"])
def test_docker_is_installed_only_where_none_was_found(engine: str, noise: str) -> None:
    """With a terminal over SSH, the warnings of sudo are in stdout too."""
    (task,) = (task for task in load(ROLES / "docker/tasks/main.yml") if task["name"] == "Install Docker")
    host = Host("docker", __docker_engine={"stdout": noise + engine})
    assert host.value(trust_as_template("{{ " + task["when"] + " }}")) is not bool(engine)


BARE = [
    ("debian", "__docker_apt", {"failed": True, "msg": "python3-apt must be installed to use check mode."}),
    ("debian", "__docker_apt", {"failed": True, "msg": "No package matching 'docker-ce' is available"}),
    ("redhat", "__docker_dnf", {"failed": True, "failures": ["No package docker-ce available."]}),
]
REAL = [
    ("debian", "__docker_apt", {"failed": True, "msg": "Failed to lock apt for exclusive operation"}),
    ("redhat", "__docker_dnf", {"failed": True, "msg": "Failed to download metadata for repo 'docker'"}),
]


@pytest.mark.parametrize(("file", "register", "result"), BARE)
def test_check_mode_passes_over_what_a_bare_host_lacks(file: str, register: str, result: dict[str, Any]) -> None:
    assert not fails(file, register, result, check=True)
    assert fails(file, register, result, check=False)


@pytest.mark.parametrize(("file", "register", "result"), REAL)
@pytest.mark.parametrize("check", [True, False])
def test_real_failure_is_not_hidden(file: str, register: str, result: dict[str, Any], check: bool) -> None:
    assert fails(file, register, result, check)
