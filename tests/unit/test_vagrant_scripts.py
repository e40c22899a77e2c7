"""scripts/box, scripts/libvirt and the proofs on a VM refuse what they cannot do before they touch anything."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run(cache: Path, script: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a cache of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VANTAGE_", "VAGRANT_"))}
    return subprocess.run(
        [str(SCRIPTS / script), *arguments],
        env={**kept, "VANTAGE_CACHE": str(cache), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("script", ["box", "libvirt", "test-vm", "test-cloud-init"])
def test_bash_parses_it(script: str) -> None:
    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed here")
@pytest.mark.parametrize("script", ["box", "libvirt", "test-vm", "test-cloud-init"])
def test_shellcheck_finds_nothing(script: str) -> None:
    command = ["shellcheck", "--external-sources", str(SCRIPTS / script)]
    answer = subprocess.run(command, cwd=SCRIPTS.parent, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("script", "argument"),
    [("box", "sarge"), ("libvirt", "dance"), ("test-vm", "sarge"), ("test-cloud-init", "sarge")],
)
def test_an_unknown_argument_shows_the_usage(tmp_path: Path, script: str, argument: str) -> None:
    answer = run(tmp_path, script, argument)
    assert answer.returncode == 2
    assert f"scripts/{script}" in answer.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["2", "twenty"])
def test_a_disk_that_cannot_hold_the_stack_is_refused(tmp_path: Path, size: str) -> None:
    answer = run(tmp_path, "box", VANTAGE_BOX_DISK_GB=size)
    assert answer.returncode == 1
    assert f"VANTAGE_BOX_DISK_GB={size}" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_listing_without_boxes_says_how_to_make_one(tmp_path: Path) -> None:
    answer = run(tmp_path, "box", "list")
    assert answer.returncode == 0
    assert "scripts/box" in answer.stderr


def test_without_kvm_the_driver_is_emulation(tmp_path: Path) -> None:
    """A machine that cannot be asked (no QEMU in PATH) must not be taken for one with KVM."""
    for name in ("bash", "dirname", "id"):
        path = shutil.which(name)
        assert path is not None
        (tmp_path / name).symlink_to(path)
    script = (SCRIPTS / "libvirt").read_text().replace(":/usr/local/sbin:/usr/sbin:/sbin", "")
    answer = subprocess.run(
        ["/bin/bash", "-c", script, "libvirt", "driver"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.strip() == "qemu", answer.stderr


@pytest.mark.parametrize("action", ["up", "down", "status", "verify"])
def test_a_misspelt_kind_of_vm_is_refused_by_every_action(tmp_path: Path, action: str) -> None:
    answer = run(tmp_path, "vm", action, "vagrnt")
    assert answer.returncode == 1
    assert "VM=vagrnt is neither vagrant nor container" in answer.stderr


def fake(folder: Path, program: str, answer: str) -> str:
    """Return a PATH on which a program does nothing but print `answer`."""
    folder.mkdir()
    (folder / program).write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\n")
    (folder / program).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def call(function: str, path: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Call a function of scripts/vm, which stops before it does anything."""
    script = (SCRIPTS / "vm").read_text().split('case "$action" in')[0].replace("  scripts/engine\n", "") + function
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VANTAGE_")}
    return subprocess.run(
        ["bash", "-c", script.replace('cd "$(dirname', ': "$(dirname'), "vm", "nothing", "container"],
        env={**kept, "PATH": path, **settings},
        cwd=SCRIPTS.parent,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("wanted", "missing"), [("13000:3000 8000", ""), ("3000 8000", "3000"), ("18000:8000", "18000:8000")]
)
def test_ports_that_a_vm_has_not_are_refused(tmp_path: Path, wanted: str, missing: str) -> None:
    """A container gets its ports when it is made."""
    path = fake(tmp_path / "bin", "docker", " 13000:3000/tcp 8000:8000/tcp ")
    answer = call("refuse_new_ports", path, VANTAGE_PORTS=wanted)
    assert answer.returncode == (1 if missing else 0), answer.stderr
    assert (f"is there without {missing}, " in answer.stderr) is bool(missing)


@pytest.mark.parametrize(
    ("variables", "ports"),
    [
        ({}, ["8000", "8001"]),
        ({"vantage_apps": []}, []),
        ({"vantage_apps": [{"port": 8080}, {"name": "worker"}]}, ["8080"]),
        ({"vantage_apps": [{"port": 8080, "replicas": 2}]}, ["8080", "8081"]),
        ({"flask_app_source": "/srv/blog", "flask_app_port": 9000}, ["9000"]),
        ({"flask_app_image": "blog:1"}, ["8000"]),
    ],
)
def test_a_vm_has_the_ports_of_its_apps(tmp_path: Path, variables: dict[str, object], ports: list[str]) -> None:
    path = fake(tmp_path / "bin", "ansible-inventory", json.dumps(variables))
    answer = call("ports", path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == ["3000", "9090", "9093", "3100", "16686", "4317", "4318", *ports]


@pytest.mark.parametrize(
    "app", [{"port": "{{ my_port }}"}, {"port": "eight thousand"}, {"port": 8000, "replicas": "two"}, {"port": 65536}]
)
def test_ports_that_cannot_be_known_are_refused(tmp_path: Path, app: dict[str, object]) -> None:
    """A VM that was made without its apps' ports would have to be made anew."""
    path = fake(tmp_path / "bin", "ansible-inventory", json.dumps({"vantage_apps": [app]}))
    answer = call("up_container", f"{path}", VANTAGE_CACHE=str(tmp_path))
    assert answer.returncode == 1
    assert "VANTAGE_PORTS=" in answer.stderr


@pytest.mark.skipif(not shutil.which("flock"), reason="there is no flock here, and so no lock")
def test_a_second_make_up_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = call("alone", os.environ["PATH"], VANTAGE_CACHE=str(tmp_path))
    assert answer.returncode == 1
    assert "vm: another 'make up' is at work here.\nvm: Fix: " in answer.stderr


def test_a_vm_without_vantage_is_told_so(tmp_path: Path) -> None:
    """After uninstall.yml the VM stays."""
    path = fake(tmp_path / "bin", "docker", "")
    (tmp_path / "bin/docker").write_text('#!/bin/sh\ncase "$*" in exec*vantage_unit*) exit 1 ;; esac\n')
    answer = call("need_installed", path, VANTAGE_CACHE=str(tmp_path))
    assert answer.returncode == 1
    assert "Vantage is not installed on it.\nvm: Fix: make up" in answer.stderr


def test_a_vm_that_is_stopped_is_told_so(tmp_path: Path) -> None:
    """After a restart of this machine the container is there, and nothing runs in it."""
    path = fake(tmp_path / "bin", "docker", "")
    (tmp_path / "bin/docker").write_text('#!/bin/sh\n[ "$1" != exec ]\n')
    answer = call("need_installed", path, VANTAGE_CACHE=str(tmp_path))
    assert answer.returncode == 1
    assert "is there and does not answer; it may be stopped.\nvm: Fix: make up" in answer.stderr


@pytest.mark.parametrize(
    ("kind", "reason", "otherwise"),
    [
        ("vagrant", "VM=vagrant", "leave VM out."),
        ("auto", "a VM of Vagrant's is here (.vagrant names it)", "go on without it: VM=container."),
    ],
)
def test_vagrant_that_is_not_installed_is_named(tmp_path: Path, kind: str, reason: str, otherwise: str) -> None:
    """Only what the script needs to get that far is there."""
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    machine = tmp_path / "vagrant/machines/vantage/libvirt"
    machine.mkdir(parents=True)
    (machine / "id").write_text("1234")
    answer = subprocess.run(
        [tmp_path / "bash", SCRIPTS / "vm", "up", kind],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "VAGRANT_DOTFILE_PATH": str(tmp_path / "vagrant")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    said = [line for line in answer.stderr.splitlines() if line.startswith("vm: ")]
    assert said[0] == f"vm: {reason}, and Vagrant is not installed here."
    assert said[1].startswith("vm: Fix: ")
    assert said[1].endswith(otherwise)


@pytest.mark.parametrize("port", ["0:8000", "18000:0", "08000", "70000", "http"])
def test_what_is_no_port_is_refused(tmp_path: Path, port: str) -> None:
    answer = call("up_container", os.environ["PATH"], VANTAGE_CACHE=str(tmp_path), VANTAGE_PORTS=port)
    assert answer.returncode == 1
    assert f"vm: VANTAGE_PORTS: '{port}' is neither" in answer.stderr
    assert "[[" not in answer.stderr


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({}, "make down, then make up\n"),
        ({"VANTAGE_PORTS": "13000:3000"}, 'make down, then VANTAGE_PORTS="13000:3000 8010" make up\n'),
        ({"VANTAGE_PORTS": "18010:8010"}, 'make down, then VANTAGE_PORTS="18010:8010" make up\n'),
    ],
)
def test_the_way_to_a_vm_with_more_ports_names_each_once(tmp_path: Path, settings: dict[str, str], again: str) -> None:
    """An inventory that names the app's port needs no list; a port that is in a list is not added to it."""
    path = fake(tmp_path / "bin", "ansible-inventory", json.dumps({"vantage_apps": [{"port": 8010}]}))
    assert call("anew 8010", path, **settings).stdout == again


def test_a_port_that_was_not_published_is_no_error(tmp_path: Path) -> None:
    path = fake(tmp_path / "bin", "docker", "")
    (tmp_path / "bin/docker").write_text("#!/bin/sh\nexit 1\n")
    answer = call('address="$(here 8002)"; echo "at <$address>"', path)
    assert (answer.returncode, answer.stdout) == (0, "at <>\n"), answer.stderr


def test_the_folder_of_a_look_by_vagrant_is_no_vm(tmp_path: Path) -> None:
    """Vagrant makes its folder for `vagrant status` too; the id comes with the machine."""
    machine = tmp_path / "machines/vantage/libvirt"
    machine.mkdir(parents=True)
    (machine / "vagrant_cwd").write_text("/here")
    asked = "vagrant_has_one && echo yes || echo no"
    assert call(asked, os.environ["PATH"], VAGRANT_DOTFILE_PATH=str(tmp_path)).stdout == "no\n"
    (machine / "id").write_text("1234")
    assert call(asked, os.environ["PATH"], VAGRANT_DOTFILE_PATH=str(tmp_path)).stdout == "yes\n"
    path = fake(tmp_path / "bin", "vagrant", "")
    absent = run(tmp_path, "vm", "password", "vagrant", VAGRANT_DOTFILE_PATH=str(tmp_path / "nowhere"), PATH=path)
    assert absent.returncode == 1
    assert "there is no VM 'vantage' of the kind vagrant" in absent.stderr


def test_an_engine_is_installed_where_there_is_none(tmp_path: Path) -> None:
    """`make up` and `make test` need nothing on a machine but Python, git and make."""
    for name in ("bash", "dirname", "timeout", "id", "uname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    script = (SCRIPTS / "engine").read_text().replace(':/usr/local/sbin:/usr/sbin:/sbin"', '"')
    (tmp_path / "engine").write_text(script)
    (tmp_path / "host-tools").write_text(f'#!{tmp_path}/bash\necho "asked for $*" >&2; exit 3\n')
    for program in ("engine", "host-tools"):
        (tmp_path / program).chmod(0o755)
    answer = subprocess.run(
        [f"{tmp_path}/bash", f"{tmp_path}/engine"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (3, "asked for engine\n")
