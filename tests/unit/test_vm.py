"""The front door: which VM, which ports, and what it says of each."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_program
from typer.testing import CliRunner
from vantage_tools.cli import app
from vantage_tools.errors import UserError
from vantage_tools.vm import cli, endpoints, libvirt, machine, ports
from vantage_tools.vm.container import SystemContainer
from vantage_tools.vm.machine import Kind
from vantage_tools.vm.ports import PortMapping

ENGINES = [3000, 9090, 9093, 3100, 16686, 4317, 4318]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests, an empty cache and no VM."""
    for name in ("VANTAGE_PORTS", "VANTAGE_SYSTEM", "VANTAGE_SYSTEM_IMAGE", "VANTAGE_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "vagrant"))
    fake_program(tmp_path / "bin", "docker", "exit 1", monkeypatch)


def vagrant_vm(tmp_path: Path) -> None:
    folder = tmp_path / "vagrant/machines/vantage/libvirt"
    folder.mkdir(parents=True)
    (folder / "id").write_text("1234")


def inventory_says(tmp_path: Path, variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "ansible-inventory", f"cat <<'END'\n{json.dumps(variables)}\nEND", monkeypatch)


# --- Which VM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["up", "verify", "status", "report", "logs", "shell", "password", "down"])
def test_unknown_kind_of_vm_is_refused(action: str) -> None:
    answer = CliRunner().invoke(app, [action, "--vm", "vagrnt"])
    assert answer.exit_code == 2
    assert "vagrnt" in answer.output


def test_existing_container_is_chosen_before_vagrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vagrant_vm(tmp_path)
    fake_program(tmp_path / "bin", "docker", "exit 0", monkeypatch)
    assert machine.choose(Kind.AUTO).kind is Kind.CONTAINER


@pytest.mark.parametrize(("driver", "kind"), [("kvm", Kind.VAGRANT), ("qemu", Kind.CONTAINER)])
def test_vagrant_is_chosen_only_where_it_need_not_emulate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, kind: Kind
) -> None:
    fake_program(tmp_path / "bin", "vagrant", "exit 0", monkeypatch)
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    monkeypatch.setattr(libvirt, "find_driver", lambda: driver)
    assert machine.choose(Kind.AUTO).kind is kind
    assert machine.choose(Kind.VAGRANT).kind is Kind.VAGRANT


@pytest.mark.parametrize(("kind", "fix"), [(Kind.VAGRANT, "without VM"), (Kind.AUTO, "VM=container")])
def test_missing_vagrant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, fix: str) -> None:
    vagrant_vm(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match="vagrant is not installed") as refused:
        machine.choose(kind)
    assert fix in refused.value.fix


def test_folder_that_vagrant_status_leaves_is_no_vm(tmp_path: Path) -> None:
    folder = tmp_path / "vagrant/machines/vantage/libvirt"
    folder.mkdir(parents=True)
    (folder / "vagrant_cwd").write_text("/here")
    assert not machine.VagrantMachine().exists
    (folder / "id").write_text("1234")
    assert machine.VagrantMachine().exists


def container_ports() -> list[PortMapping]:
    return ports.of_inventory(machine.inventory(Kind.CONTAINER), machine.NAME)


# --- Which ports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "app_ports"),
    [
        ({}, [8000, 8001]),
        ({"vantage_apps": []}, []),
        ({"vantage_apps": [{"port": 8080}, {"name": "worker"}]}, [8080]),
        ({"vantage_apps": [{"port": 8080, "replicas": 2}]}, [8080, 8081]),
        ({"flask_app_source": "/srv/blog", "flask_app_port": 9000}, [9000]),
        ({"flask_app_image": "blog:1"}, [8000]),
        ({"vantage_apps": [{"port": 3000}]}, []),
    ],
)
def test_container_publishes_the_ports_of_its_apps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], app_ports: list[int]
) -> None:
    inventory_says(tmp_path, variables, monkeypatch)
    mappings = container_ports()
    assert mappings == [PortMapping(port, port) for port in ENGINES + app_ports]


@pytest.mark.parametrize("app_", [{"port": "{{ my_port }}"}, {"port": "eight"}, {"port": 8000, "replicas": "two"}])
def test_unknown_ports_of_an_app_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app_: Any) -> None:
    inventory_says(tmp_path, {"vantage_apps": [app_]}, monkeypatch)
    with pytest.raises(UserError) as refused:
        container_ports()
    assert "inventory/container" in refused.value.problem
    assert "VANTAGE_PORTS=" in refused.value.fix


@pytest.mark.parametrize("port", ["0:8000", "18000:0", "08000", "70000", "http", "1:2:3"])
def test_invalid_port_is_named(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("VANTAGE_PORTS", f"9090 {port}")
    with pytest.raises(UserError, match=rf"VANTAGE_PORTS: invalid port: {port} \(.*1-65535"):
        container_ports()


def test_given_ports_replace_those_of_the_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VANTAGE_PORTS", "13000:3000 8000 8000")
    assert container_ports() == [PortMapping(13000, 3000), PortMapping(8000, 8000)]
    monkeypatch.setenv("VANTAGE_PORTS", "")
    assert container_ports() == []


def test_container_publishes_an_engine_where_the_inventory_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory_says(tmp_path, {"grafana_port": 3300, "vantage_apps": []}, monkeypatch)
    assert container_ports()[0] == PortMapping(3300, 3300)


def test_vagrant_publishes_the_ports_of_the_vagrantfile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {3000, 8000, 8001, 9090, 3100} <= machine.VagrantMachine().published().keys()
    monkeypatch.setenv("VANTAGE_PORTS", "13000:3000")
    assert machine.VagrantMachine().published() == {3000: 13000}


@pytest.mark.parametrize(
    ("wanted", "missing"), [("13000:3000 8000", ""), ("3000 8000", "3000"), ("18000:8000", "18000:8000")]
)
def test_new_ports_of_an_existing_container_are_refused(
    monkeypatch: pytest.MonkeyPatch, wanted: str, missing: str
) -> None:
    monkeypatch.setenv("VANTAGE_PORTS", wanted)
    published = {3000: 13000, 8000: 8000}
    if missing:
        with pytest.raises(UserError, match=f"does not publish {missing}[.]"):
            ports.refuse_new(published, "vantage")
    else:
        ports.refuse_new(published, "vantage")


def test_published_ports_are_those_that_docker_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "docker", "echo '3000/tcp=13000 8000/tcp=8000 '", monkeypatch)
    assert SystemContainer("vantage").published() == {3000: 13000, 8000: 8000}


# --- What it says -------------------------------------------------------------------------------------------------


class FakeMachine(machine.ContainerMachine):
    """A container that publishes these ports."""

    def __init__(self, published: dict[int, int]) -> None:
        super().__init__()
        self._published = published

    def published(self) -> dict[int, int]:
        return self._published


def service(name: str, port: int, container: int = 8000, owner: str = "flask_app") -> dict[str, Any]:
    ports_ = [{"address": "0.0.0.0", "host": port, "container": container}]
    return {
        "service": name,
        "app": name.split("-")[0],
        "owner": owner,
        "ports": ports_,
        "unit": f"vantage-{name}.service",
    }


def test_endpoints_name_apps_engines_and_grafana(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory_says(tmp_path, {}, monkeypatch)
    services = [
        service("storefront-2", 8002),
        service("storefront", 8000),
        service("grafana", 3300, 3000, "grafana"),
        service("jaeger", 16686, 16686, "jaeger"),
        service("prometheus", 9090, 9090, "prometheus"),
    ]
    lines = list(endpoints.describe(FakeMachine({3300: 13000, 8000: 8000, 9090: 9090}), services))
    assert [line.split()[:2] for line in lines[:2]] == [
        ["storefront", "http://localhost:8000/"],
        ["storefront-2", "port"],
    ]
    assert 'VANTAGE_PORTS="13000:3300 8000:8000 9090:9090 8002" make up' in lines[3]
    assert lines[4].split()[:2] == ["grafana", "http://localhost:13000/"]
    assert lines[5].split() == ["prometheus", "http://localhost:9090/"]
    assert not [line for line in lines if "jaeger" in line]


def test_missing_grafana_is_named_with_the_way_to_get_it() -> None:
    text = "\n".join(endpoints.describe(FakeMachine({}), []))
    assert "VANTAGE_GRAFANA_ARCHIVE=" in text
    assert "http://" not in text


def list_answers(tmp_path: Path, services: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container on which `list --json` answers; other commands are printed."""
    script = f"case \"$*\" in *'list --json --no-probe') cat <<'END'\n{json.dumps(services)}\nEND\n;; esac"
    fake_program(tmp_path / "bin", "docker", script, monkeypatch)


def test_password_without_grafana_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_answers(tmp_path, [service("storefront", 8000)], monkeypatch)
    with pytest.raises(UserError, match="Grafana is not installed"):
        CliRunner().invoke(app, ["password", "--vm", "container"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("storefront", {"vantage-storefront.service", "vantage-storefront-2.service"}),
        ("storefront-2", {"vantage-storefront-2.service"}),
    ],
)
def test_logs_of_an_app_are_those_of_all_its_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, units: set[str]
) -> None:
    list_answers(tmp_path, [service("storefront", 8000), service("storefront-2", 8002)], monkeypatch)
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(cli, "replace_process", lambda *argv: commands.append(argv))
    CliRunner().invoke(app, ["logs", name, "--vm", "container"], catch_exceptions=False)
    (command,) = commands
    assert {word.removeprefix("--unit=") for word in command if word.startswith("--unit=")} == units


@pytest.mark.parametrize("name", ["storfront", ""])
def test_logs_of_an_unknown_service_name_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    list_answers(tmp_path, [service("warehouse", 8001), service("storefront", 8000)], monkeypatch)
    with pytest.raises(UserError, match="unknown service") as refused:
        CliRunner().invoke(app, ["logs", name, "--vm", "container"], catch_exceptions=False)
    assert "storefront warehouse" in refused.value.problem


def test_further_arguments_of_report_reach_ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_answers(tmp_path, [], monkeypatch)
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(cli, "play", lambda kind, *words: calls.append((kind, *words)))
    words = ["--vm", "container", "-e", "report_short=1m", "-vv"]
    CliRunner().invoke(app, ["report", *words], catch_exceptions=False)
    assert calls == [("container", "playbooks/report.yml", "-e", "report_short=1m", "-vv")]


# --- States of the VM ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.VAGRANT])
def test_missing_vm_is_named_with_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    fake_program(tmp_path / "bin", "vagrant", "exit 0", monkeypatch)
    with pytest.raises(UserError, match=f"VM vantage .{kind}. does not exist"):
        machine.list_services(machine.choose(kind))


@pytest.mark.parametrize(
    ("docker", "problem"),
    [
        ('case "$*" in exec*vantage_unit*) exit 1 ;; esac', "not installed"),
        ('[ "$1" != exec ]', "does not answer"),
    ],
)
def test_vm_without_vantage_differs_from_a_stopped_vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: str, problem: str
) -> None:
    """After uninstall.yml the VM stays; after a restart of this machine it is stopped."""
    fake_program(tmp_path / "bin", "docker", docker, monkeypatch)
    with pytest.raises(UserError, match=problem) as refused:
        machine.list_services(machine.ContainerMachine())
    assert refused.value.fix == "make up"


def test_second_make_up_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with (tmp_path / "cache/up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another `make up` is running"):
            CliRunner().invoke(app, ["up"], catch_exceptions=False)


# --- The system container -----------------------------------------------------------------------------------------


def test_container_of_another_program_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    fake_program(tmp_path / "bin", "docker", f"echo \"$1\" >> {log}; echo '<no value>'", monkeypatch)
    with pytest.raises(UserError, match="not made by vantage"):
        SystemContainer("vantage").down()
    assert "rm" not in log.read_text().split()
