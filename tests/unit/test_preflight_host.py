"""What preflight finds of Docker, networks, disks and other runs on a host, and what it refuses, without a host."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gather_host_state
import pytest
import record_run
from rendering import ROLES, Host, load
from test_preflight import as_given, plugin, ports

engines = plugin("preflight_engine")
hosts = plugin("preflight_host")

SUBNET, GATEWAY = "172.29.238.0/24", "172.29.238.1"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What programs print on the host, by the beginning of their command."""
    answers: dict[str, str] = {}

    def run(*argv: str) -> str:
        command = " ".join(argv)
        return next((text for start, text in answers.items() if command.startswith(start)), "")

    monkeypatch.setattr(gather_host_state, "run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    return answers


# Other engines ---------------------------------------------------------------------------------------------------------


def engine(**given: Any) -> dict[str, Any]:
    found = {"dockerd": "/usr/sbin/dockerd", "docker": "/usr/bin/docker", "unit": "loaded"}
    return found | {"security": ["name=seccomp,profile=default"], "packages": [], "python": {}} | given


def bare(**given: Any) -> dict[str, Any]:
    return engine(dockerd="", docker="", unit="not-found", security=[]) | given


# As `dpkg-query --show` prints them on Debian 12.
CONTAINERD_IO = "installed\tcontainerd.io\tcontainerd, runc, \n"
PODMAN_DOCKER = "installed\tpodman-docker\tdocker-ce-cli, docker.io, \n"
OTHERS = (
    "installed\tbash\tbash-completion (<< 20060301-0), \n"
    "config-files\tdocker-engine\tdocker.io, \n"
    "installed\tsystemd\tconsolekit, libpam-ck-connector, systemd-shim, resolvconf, containerd (<< 1.2)\n"
)


def test_packages_of_engines_are_found_with_what_they_exclude(shown: dict[str, str]) -> None:
    shown["dpkg-query"] = CONTAINERD_IO + PODMAN_DOCKER + OTHERS
    found = {package["name"]: package["conflicts"] for package in gather_host_state.list_packages()}
    assert found["containerd.io"] == ["containerd", "runc"]
    assert found["podman-docker"] == ["docker-ce-cli", "docker.io"]
    assert set(found) == {"containerd.io", "podman-docker", "systemd"}
    assert "containerd" not in found["systemd"], "another version of it is excluded, not the package"


@pytest.mark.parametrize(
    ("source", "installed", "refused", "advice"),
    [
        ("distribution", CONTAINERD_IO, "containerd.io", "docker_source"),
        ("distribution", PODMAN_DOCKER, "podman-docker", "podman-docker keeps Podman"),
        ("distribution", "installed\tmoby-containerd\tcontainerd, runc, \n", "moby-containerd", "another host"),
        ("docker", PODMAN_DOCKER, "podman-docker", "podman-docker keeps Podman"),
        ("docker", "installed\tcontainerd\t, \n", "containerd", "another host"),
        ("docker", CONTAINERD_IO, "", ""),
        ("distribution", "installed\tcontainerd\t, \ninstalled\trunc\t, \n", "", ""),
        ("distribution", OTHERS, "", ""),
    ],
)
def test_package_that_docker_would_replace_is_refused(
    shown: dict[str, str], source: str, installed: str, refused: str, advice: str
) -> None:
    shown["dpkg-query"] = installed
    problems = engines.problems_of_engine(bare(packages=gather_host_state.list_packages()), source, "vm")
    if not refused:
        assert problems == []
        return
    (problem,) = problems
    assert f"package {refused} on vm" in problem
    assert f"docker_source: {source}" in problem
    assert advice in problem


def test_packages_do_not_matter_where_docker_is_installed() -> None:
    found = engine(packages=[{"name": "containerd.io", "conflicts": ["containerd"]}])
    assert engines.problems_of_engine(found, "distribution", "vm") == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (engine(docker="/usr/local/bin/docker"), ["/usr/local/bin/docker", "/usr/bin/docker", "ln -s"]),
        (engine(docker=""), ["missing", "/usr/bin/docker"]),
        (engine(unit="not-found"), ["docker.service", "/usr/sbin/dockerd"]),
        (engine(security=["name=seccomp,profile=default", "name=userns"]), ["userns-remap", "daemon.json"]),
        (engine(security=["name=rootless"]), ["rootless"]),
        (bare(docker="/snap/bin/docker"), ["/snap/bin/docker", "snap remove docker"]),
        (
            bare(python={"found": "/opt/py/bin/python3.12", "default": "python3.11"}),
            ["/usr/bin/python3", "/opt/py/bin/python3.12", "python3.11", "python3-apt", "ln -sf"],
        ),
    ],
)
def test_docker_that_cannot_run_the_units_is_refused(found: dict[str, Any], words: list[str]) -> None:
    (problem,) = engines.problems_of_engine(found, "distribution", "vm")
    for word in ["vm", *words]:
        assert word in problem


def test_an_ordinary_docker_and_a_bare_host_pass() -> None:
    assert engines.problems_of_engine(engine(), "distribution", "vm") == []
    assert engines.problems_of_engine(bare(), "docker", "vm") == []


def test_stopped_docker_is_known_by_its_settings(
    shown: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather_host_state, "DAEMON", tmp_path / "daemon.json")
    assert gather_host_state.inspect_engine({}, {})["security"] == []
    (tmp_path / "daemon.json").write_text('{"userns-remap": "default"}')
    assert gather_host_state.inspect_engine({}, {})["security"] == ["name=userns"]
    (tmp_path / "daemon.json").write_text("not JSON")
    assert gather_host_state.inspect_engine({}, {})["security"] == []


@pytest.mark.parametrize(
    ("link", "usable", "foreign"),
    [("python3.11", "", False), ("other", "", True), ("other", "usable\n", False)],
    ids=["distribution", "without the library", "with the library"],
)
def test_python_of_others_is_found(
    link: str, usable: str, foreign: bool, shown: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python3.11", "other"):
        (tmp_path / name).touch()
    (tmp_path / "python3").symlink_to(tmp_path / link)
    (tmp_path / "debian_defaults").write_text(
        "[DEFAULT]\n# the default python3 version\ndefault-version = python3.11\n"
    )
    monkeypatch.setattr(gather_host_state, "PYTHON", tmp_path / "python3")
    monkeypatch.setattr(gather_host_state, "DEBIAN_PYTHON", tmp_path / "debian_defaults")
    shown[str(tmp_path / "python3")] = usable
    expected = {"found": str(tmp_path / "other"), "default": "python3.11"} if foreign else {}
    assert gather_host_state.find_foreign_python() == expected


# The network -----------------------------------------------------------------------------------------------------------

# As `docker network inspect` and `ip -o -4 route show table all` print them.
NETWORKS = [
    {"Name": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]}},
    {"Name": "host", "IPAM": {"Config": []}},
    {"Name": "somebody", "IPAM": {"Config": [{"Subnet": "172.29.0.0/16", "Gateway": "172.29.0.1"}]}},
]
ROUTES = """\
default via 10.0.2.2 dev eth0 proto dhcp metric 100
0.0.0.0/1 via 10.8.0.1 dev tun0
10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15
172.29.0.0/16 dev br-0a1b2c proto kernel scope link src 172.29.0.1
192.168.238.0/24 via 10.8.0.1 dev tun0 table vpn
blackhole 198.18.0.0/15
local 10.0.2.15 dev eth0 table local proto kernel scope host src 10.0.2.15
broadcast 10.0.2.255 dev eth0 table local proto kernel scope link src 10.0.2.15
local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
"""


def network_state(shown: dict[str, str], networks: list[dict[str, Any]], routes: str) -> dict[str, Any]:
    shown["docker network ls"] = "id\n"
    shown["docker network inspect"] = json.dumps(networks)
    shown["ip -o -4 route"] = routes
    return {"networks": gather_host_state.list_networks(), "routes": gather_host_state.list_routes()}


def test_subnet_of_another_network_is_refused_with_a_free_pair(shown: dict[str, str]) -> None:
    state = network_state(shown, NETWORKS, ROUTES)
    (problem,) = engines.problems_of_network(state, SUBNET, GATEWAY, "vm")
    assert f"vantage_network_subnet: {SUBNET}" in problem
    assert "somebody (172.29.0.0/16)" in problem
    assert "br-0a1b2c" not in problem, "the network's own route is named twice"
    assert "vantage_network_subnet: 172.30.238.0/24 and vantage_network_gateway: 172.30.238.1" in problem
    assert engines.problems_of_network(state, "172.30.238.0/24", "172.30.238.1", "vm") == []


def test_subnet_that_a_route_leads_to_is_refused(shown: dict[str, str]) -> None:
    state = network_state(shown, [], ROUTES)
    (problem,) = engines.problems_of_network(state, "192.168.238.0/24", "192.168.238.1", "vm")
    assert "tun0 (192.168.238.0/24)" in problem
    assert "vantage_network_subnet: 172.30.238.0/24" in problem


def test_own_network_of_a_docker_that_is_stopped_is_no_other(shown: dict[str, str]) -> None:
    route = f"{SUBNET} dev vantage0 proto kernel scope link src {GATEWAY} linkdown\n"
    assert engines.problems_of_network(network_state(shown, [], route), SUBNET, GATEWAY, "vm") == []


def test_default_route_in_two_halves_excludes_nothing(shown: dict[str, str]) -> None:
    state = network_state(shown, [], "0.0.0.0/1 via 10.8.0.1 dev tun0\n128.0.0.0/1 via 10.8.0.1 dev tun0\n")
    assert engines.problems_of_network(state, SUBNET, GATEWAY, "vm") == []


@pytest.mark.parametrize(
    ("subnet", "gateway", "words"),
    [
        (SUBNET, GATEWAY, []),
        (
            "172.30.0.0/24",
            "172.30.0.1",
            [f"{SUBNET} {GATEWAY}", "172.30.0.0/24 172.30.0.1", "docker network rm vantage"],
        ),
        (SUBNET, "10.0.0.1", ["vantage_network_gateway: 10.0.0.1", GATEWAY]),
    ],
)
def test_own_network_passes_with_the_subnet_that_it_has(
    subnet: str, gateway: str, words: list[str], shown: dict[str, str]
) -> None:
    own = {"Name": "vantage", "IPAM": {"Config": [{"Subnet": SUBNET, "Gateway": GATEWAY}]}}
    state = network_state(shown, [*NETWORKS, own], ROUTES)
    problems = engines.problems_of_network(state, subnet, gateway, "vm")
    assert len(problems) == bool(words)
    assert all(word in problems[0] for word in words)


# Services that crash ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", ["docker-proxy", "dockerd"])
def test_port_of_a_service_that_crashes_is_its_own(process: str, shown: dict[str, str]) -> None:
    """Docker listens for a container that `docker ps` shows without ports, or not at all."""
    shown["ss"] = f'LISTEN 0 4096 127.0.0.1:16686 0.0.0.0:* users:(("{process}",pid=46935,fd=8))\n'
    shown["docker ps --all"] = f"{'a' * 64} vantage-jaeger \n"
    (found,) = gather_host_state.list_listeners(docker_runs=True, own_ports={16686: "vantage-jaeger"})
    assert found["container"] == "vantage-jaeger"
    (other,) = gather_host_state.list_listeners(docker_runs=True, own_ports={})
    assert other["container"] == ""


def test_port_of_a_service_that_another_program_took_is_not_its_own(shown: dict[str, str]) -> None:
    shown["ss"] = 'LISTEN 0 4096 127.0.0.1:16686 0.0.0.0:* users:(("nginx",pid=7,fd=8))\n'
    (found,) = gather_host_state.list_listeners(docker_runs=True, own_ports={16686: "vantage-jaeger"})
    assert found["container"] == ""


def test_another_container_on_the_port_is_named(shown: dict[str, str]) -> None:
    shown["ss"] = 'LISTEN 0 4096 127.0.0.1:16686 0.0.0.0:* users:(("docker-proxy",pid=7,fd=8))\n'
    shown["docker ps --all"] = f"{'a' * 64} stranger 127.0.0.1:16686->80/tcp\n"
    (found,) = gather_host_state.list_listeners(docker_runs=True, own_ports={16686: "vantage-jaeger"})
    assert found["container"] == "stranger"


def test_service_that_is_switched_off_needs_no_port() -> None:
    given = {"vantage_engine_address": "127.0.0.1", "vantage_publish_address": "127.0.0.1", "loki_port": 3100}
    assert [p.service for p in ports.engine_ports(given, ["monitoring"])] == ["loki"]
    assert ports.engine_ports(given | {"loki_enabled": "false"}, ["monitoring"]) == []


def test_output_that_is_not_utf_8_is_read() -> None:
    assert gather_host_state.run("printf", "caf\\351") == "caf\N{REPLACEMENT CHARACTER}"


# Room ------------------------------------------------------------------------------------------------------------------


def small_disks(*free: int) -> list[Any]:
    disks = [{"path": f"/{number}", "free_mb": mb} for number, mb in enumerate(free)]
    host = Host("preflight", preflight_disk_mb=8000, __preflight_gathered={"state": {"disks": disks}})
    return [disk["path"] for disk in host.value(host.variables["__preflight_small_disks"])]


@pytest.mark.parametrize(
    ("free", "small"), [((8000,), []), ((7999,), ["/0"]), ((4000, 4000), []), ((90000, 3999), ["/1"])]
)
def test_room_is_needed_on_each_file_system(free: tuple[int, ...], small: list[str]) -> None:
    assert small_disks(*free) == small


def test_one_file_system_is_measured_once_and_dockers_own_separately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather_host_state, "DATA", tmp_path / "vantage")
    assert [disk["path"] for disk in gather_host_state.list_disks(str(tmp_path / "docker"))] == [
        str(tmp_path / "vantage")
    ]
    assert [disk["path"] for disk in gather_host_state.list_disks("/proc")] == [str(tmp_path / "vantage"), "/proc"]


# How the programs reach the host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "python"),
    [
        ({}, "/usr/bin/python3"),
        ({"ansible_python_interpreter": "auto_silent"}, "/usr/bin/python3"),
        ({"ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3.12"}}, "/usr/bin/python3.12"),
        ({"ansible_python_interpreter": "/usr/bin/env python3"}, "/usr/bin/env python3"),
    ],
)
@pytest.mark.parametrize("become", ["", "sudo", "su"])
def test_program_is_not_a_file_on_the_host(variables: dict[str, Any], python: str, become: str) -> None:
    """/root, /home and /tmp may be mounted with noexec. su may need the terminal for its password."""
    action = object.__new__(hosts.ActionModule)
    action._connection = SimpleNamespace(
        has_pipelining=True, become=SimpleNamespace(pipelining=become != "su") if become else None
    )
    action._templar = SimpleNamespace(template=as_given)
    sent: list[tuple[str, bytes | None]] = []

    def execute(command: str, in_data: bytes | None) -> dict[str, str]:
        sent.append((command, in_data))
        return {"stdout": '{"id": "x"}', "stderr": ""}

    action._low_level_execute_command = execute
    printed = action.program("record_run.py", {"inventory_hostname": "vm"} | variables, "begin", "a b")
    assert printed == {"id": "x"}
    ((command, data),) = sent
    program = (ROLES / "preflight/files/record_run.py").read_text()
    words = ["-c", program] if become == "su" else ["-"]
    assert shlex.split(command) == [*python.split(), *words, "begin", "a b"]
    assert data == (None if become == "su" else program.encode())


@pytest.mark.parametrize("said", [[], ["Rolled back at 12:00: hello ended 2 times."]])
def test_a_rollback_is_told_before_anything_can_refuse(said: list[str]) -> None:
    action = object.__new__(hosts.ActionModule)
    action._task = SimpleNamespace(args={"step": "gather"}, async_val=0, check_mode=False)
    action._templar = SimpleNamespace(template=as_given)
    action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    action.program = lambda *_: {"run": {}, "rollbacks": said}
    found = action.run(task_vars={"inventory_hostname": "vm"})
    assert found["warnings"] == [f"vm: {text}" for text in said]


# One run at a time -----------------------------------------------------------------------------------------------------

OWN = {"id": "here/1", "controller": "here", "pid": 1, "who": "alice@laptop"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def test_second_run_learns_who_runs_and_since_when(record: Path) -> None:
    assert record_run.begin(record, OWN) == {}
    found = record_run.begin(record, OWN | {"id": "there/2"})
    assert {name: found[name] for name in OWN} == OWN
    assert found["since"].endswith("UTC")
    assert 0 <= found["age"] < 60
    problem = hosts.run_problem(found, "vm")
    for word in ("vm", "alice@laptop", "pid 1", found["since"], hosts.RUN_FILE):
        assert word in problem


def test_next_run_may_begin_when_the_first_ended(record: Path) -> None:
    record_run.begin(record, OWN)
    record_run.end(record, OWN["id"])
    assert not record.exists()
    assert record_run.begin(record, OWN | {"id": "there/2"}) == {}


def test_run_that_ends_leaves_the_record_of_another(record: Path) -> None:
    record_run.begin(record, OWN)
    record_run.end(record, "there/2")
    assert json.loads(record.read_text())["id"] == "here/1"
    record_run.end(record, OWN["id"])
    record_run.end(record, OWN["id"])
    assert not record.exists()


def test_run_may_begin_twice_and_replaces_only_the_run_that_it_names(record: Path) -> None:
    record_run.begin(record, OWN)
    assert record_run.begin(record, OWN) == {}
    assert record_run.begin(record, OWN | {"id": "there/2"}, "gone/9")["id"] == "here/1"
    assert record_run.begin(record, OWN | {"id": "there/2"}, "here/1") == {}
    assert json.loads(record.read_text())["id"] == "there/2"


def test_damaged_record_does_not_block(record: Path) -> None:
    record.write_bytes(b"\xff{")
    assert record_run.begin(record, OWN) == {}


def test_of_many_runs_at_once_one_begins(record: Path) -> None:
    program = ROLES / "preflight/files/record_run.py"
    processes = [
        subprocess.Popen(
            [sys.executable, program, "begin", record, json.dumps(OWN | {"id": f"here/{number}"})],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    assert answers.count({}) == 1
    assert len({answer["id"] for answer in answers if answer}) == 1


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("controller", "pid", "age", "over"),
    [
        ("here", os.getpid(), 60, False),
        ("here", None, 60, True),
        ("there", None, 60, False),
        ("there", None, 6000, False),
        ("there", os.getpid(), hosts.LEASE_SECONDS + 1, True),
    ],
    ids=["runs", "was killed", "on another controller", "builds there for long", "expired"],
)
def test_killed_run_does_not_block_for_ever(controller: str, pid: int | None, age: int, over: bool) -> None:
    found = {"id": f"{controller}/7", "controller": controller, "pid": pid or dead_process(), "age": age}
    assert hosts.is_over(found, OWN) is over


@pytest.mark.parametrize(
    ("start", "over"),
    [(hosts.start_of(os.getpid()), False), ("1", True), (None, False)],
    ids=["the same process", "another process", "record of an earlier release"],
)
def test_process_with_the_number_of_a_killed_run_does_not_block(start: str | None, over: bool) -> None:
    found = {"id": "here/7", "controller": "here", "pid": os.getpid(), "age": 60}
    assert hosts.is_over(found | ({"start": start} if start else {}), OWN) is over


def test_run_is_known_by_its_process_and_the_start_of_it() -> None:
    run = hosts.this_run()
    assert run["pid"] == os.getppid()
    assert run["start"] == hosts.start_of(os.getppid()) != ""
    assert run["id"].endswith(f"/{run['pid']}/{run['start']}")
    assert hosts.start_of(dead_process()) == ""


def test_no_run_and_the_own_run_do_not_block() -> None:
    assert hosts.is_over({}, OWN)
    assert hosts.is_over(OWN | {"age": 1}, OWN)


def test_state_of_the_host_has_the_present_run(record: Path) -> None:
    assert gather_host_state.present_run(record) == {}
    record_run.begin(record, OWN)
    os.utime(record, (time.time() - 100, time.time() - 100))
    assert gather_host_state.present_run(record)["id"] == OWN["id"]
    assert gather_host_state.present_run(record)["age"] == pytest.approx(100, abs=30)


def test_task_that_writes_files_renews_the_record() -> None:
    text = (ROLES / "vantage/library/vantage_files.py").read_text()
    assert f'RUN_FILE = "{hosts.RUN_FILE}"' in text
    assert "os.utime(RUN_FILE)" in text


@pytest.mark.parametrize("playbook", ["site.yml", "uninstall.yml"])
def test_playbook_that_changes_hosts_removes_its_record_last(playbook: str) -> None:
    last = load(ROLES.parent / "playbooks" / playbook)[-1]
    tasks = last.get("post_tasks") or last["tasks"]
    roles = [task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role") for task in tasks]
    # A look changes nothing.
    looks = [{"name": "flask_app", "tasks_from": "check"}] if playbook == "site.yml" else []
    end = {"name": "preflight", "tasks_from": "end"}
    assert roles[roles.index(end) :] == [end, *looks]


def test_rollback_is_a_run_of_its_own_whether_it_fails_or_not() -> None:
    tasks = load(ROLES.parent / "playbooks/rollback.yml")[0]["tasks"]
    found = [task.get("ansible.builtin.import_role", {}).get("tasks_from", "") or [*task][1] for task in tasks]
    assert found[:3] == ["begin", "ansible.builtin.command", "end"]
