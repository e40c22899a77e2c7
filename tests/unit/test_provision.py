"""tools/machines/provision.py reports reason and fix of a failure in its status file and on the console."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from rendering import ROOT

SCRIPT = ROOT / "tools/machines/provision.py"
spec = importlib.util.spec_from_file_location("provision", SCRIPT)
assert spec is not None and spec.loader is not None
provision = importlib.util.module_from_spec(spec)
spec.loader.exec_module(provision)


# Runs the program as if it were run by another user, so that the tests need not be run by root.
AS_USER = """
import os, runpy, sys
os.geteuid = lambda: int(os.environ["TEST_USER"])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Machine:
    """Directories of its own for the program, with stubs in front of the programs that must not run here."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "opt"
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.stub("sudo", "exit 1")
        self.stub("apt-get", 'echo "E: Unable to locate package" >&2; exit 100')
        self.stub("dnf", "exit 1")
        self.stub("python3", f'exec {sys.executable} "$@"')
        # Always there, so that the program has nothing to install, whatever the tests run on.
        self.stub("curl", 'echo "curl: (6) no network in this test" >&2; exit 6')

    def stub(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, user: str = "0", program: Path = SCRIPT, **settings: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("VANTAGE_")}
        places = {
            "VANTAGE_HOME": str(self.home),
            "VANTAGE_LOG": str(self.log),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "TEST_USER": user,
        }
        given = {f"VANTAGE_{name}": value for name, value in settings.items()}
        return subprocess.run(
            [sys.executable, "-c", AS_USER, str(program)],
            env={**kept, **places, **given},
            capture_output=True,
            text=True,
            check=False,
        )

    def status(self) -> dict[str, str]:
        lines = (self.home / "status").read_text().splitlines()
        return dict(line.split(": ", 1) for line in lines)

    def refused(self, step: str, **settings: str) -> dict[str, str]:
        """The status of a run that must end in `step`; what it says is on the console too."""
        answer = self.run(**settings)
        assert answer.returncode == 1, answer.stdout + answer.stderr
        status = self.status()
        assert status["state"] == "failed"
        assert status["step"] == step, status
        assert status["reason"] in answer.stdout
        assert status["fix"] in answer.stdout
        assert status["again"] == f"sudo {self.home}/provision"
        return status


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose requirements are already installed, as far as the program can see."""
    folder = tmp_path / "project"
    (folder / "tools/requirements").mkdir(parents=True)
    (folder / "site.yml").write_text("---\n")
    (folder / "tools/requirements/ansible.txt").write_text("nosuch-package-anywhere==1\n")
    return folder


def installed(machine: Machine, project: Path, playbook: str = "exit 0") -> None:
    """Write a stand-in for the venv of an earlier run."""
    place = machine.home / "venv/bin/ansible-playbook"
    place.parent.mkdir(parents=True)
    place.write_text(f"#!/bin/bash\n{playbook}\n")
    place.chmod(0o755)
    stamp = provision.venv_stamp(sys.executable, project / provision.PINS)
    (machine.home / "venv/stamp").write_text(stamp)


def test_a_run_without_root_changes_nothing(machine: Machine) -> None:
    answer = machine.run(user="1000", PROJECT="/anything")
    assert answer.returncode == 1
    assert "sudo" in answer.stderr
    assert not machine.home.exists()


def test_a_missing_project_setting_is_named(machine: Machine) -> None:
    assert "VANTAGE_PROJECT" in machine.refused("project")["reason"]


def test_a_project_path_that_does_not_exist_is_named(machine: Machine) -> None:
    assert "/nowhere/at/all" in machine.refused("project", PROJECT="/nowhere/at/all")["reason"]


def test_a_file_that_is_not_an_archive_is_named(machine: Machine, tmp_path: Path) -> None:
    wrong = tmp_path / "page.tar.gz"
    wrong.write_text("<html>404</html>")
    assert f"{wrong} is not a .tar.gz" in machine.refused("project", PROJECT=str(wrong))["reason"]


def test_an_archive_of_another_project_is_refused(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz") as archive:
        archive.add(SCRIPT, "script")
    assert "site.yml" in machine.refused("project", PROJECT=str(other))["reason"]


def test_an_archive_with_another_hash_is_refused(machine: Machine, project: Path, tmp_path: Path) -> None:
    packed = tmp_path / "vantage.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(project, "vantage")
    status = machine.refused("project", PROJECT=str(packed), PROJECT_SHA256="0" * 64)
    assert "0" * 64 in status["reason"]
    assert not (machine.home / "project").exists()


def test_a_failed_download_names_the_url_and_curls_message(machine: Machine) -> None:
    machine.stub("curl", 'echo "curl: (6) Could not resolve host: vantage.invalid" >&2; exit 6')
    url = "https://vantage.invalid/vantage.tar.gz"
    reason = machine.refused("project", PROJECT=url)["reason"]
    assert url in reason
    assert "Could not resolve host" in reason


def test_a_machine_without_a_new_python_is_refused(machine: Machine) -> None:
    for name in provision.PYTHONS:
        machine.stub(name, "exit 1")
    status = machine.refused("python")
    assert "3.11" in status["reason"]


def test_a_failed_installation_of_ansible_shows_pips_message(machine: Machine, project: Path) -> None:
    machine.stub("pip", 'echo "ERROR: No matching distribution found for ansible" >&2; exit 1')
    machine.stub(
        "python3",
        f'case "$*" in "-m venv"*) mkdir -p "$3/bin"; cp {machine.bin}/pip "$3/bin/pip" ;; *) exec {sys.executable} "$@" ;; esac',
    )
    reason = machine.refused("ansible", PROJECT=str(project))["reason"]
    assert "Ansible" in reason
    assert "No matching distribution" in reason


def test_ansibles_error_message_is_the_reason(machine: Machine, project: Path) -> None:
    installed(
        machine, project, 'echo "[ERROR]: Task failed: localhost has 900 MiB of memory, the stack needs 1800"; exit 2'
    )
    status = machine.refused("site.yml", PROJECT=str(project))
    assert status["reason"] == "Task failed: localhost has 900 MiB of memory, the stack needs 1800"


def test_the_reason_includes_what_the_failed_program_printed(machine: Machine, project: Path) -> None:
    said = "[ERROR]: Task failed: Module failed: non-zero return code\\n    stderr: |-\\n        no room left\\n    stderr_lines: x"
    installed(machine, project, f"printf '{said}\\n'; exit 2")
    reason = machine.refused("site.yml", PROJECT=str(project))["reason"]
    assert reason == "Task failed: Module failed: non-zero return code: no room left"


def test_a_second_run_uses_the_settings_of_the_first(machine: Machine, project: Path) -> None:
    installed(machine, project, "[[ -e ../mended ]]")
    machine.refused("site.yml", PROJECT=str(project), EXTRA_VARS="a=1 b='x y'")
    (machine.home / "mended").touch()
    answer = machine.run()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert machine.status()["state"] == "done"
    assert (machine.home / "provision").read_text() == SCRIPT.read_text()


def test_the_program_itself_can_be_the_user_data(machine: Machine, project: Path, tmp_path: Path) -> None:
    """A cloud runs a script as it is, without settings; later runs use the copy in /opt/vantage."""
    assert SCRIPT.read_text().startswith("#!")
    installed(machine, project)
    program = tmp_path / "part-001"
    program.write_text(SCRIPT.read_text().replace('"VANTAGE_PROJECT": ""', f'"VANTAGE_PROJECT": "{project}"'))
    for script in (program, machine.home / "provision"):
        answer = machine.run(program=script)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert machine.status()["state"] == "done"


def test_images_and_variables_reach_the_playbook_in_order(machine: Machine, project: Path, tmp_path: Path) -> None:
    """The archives' directory on this machine wins over the one in vars.yml."""
    installed(machine, project, 'printf "%s\\n" "$*" >> ../called')
    images = tmp_path / "images"
    images.mkdir()
    (images / "index.json").write_text("{}")
    (images / "vars.yml").write_text("---\n")
    (machine.home / "vars.yml").write_text("---\n")
    answer = machine.run(PROJECT=str(project), IMAGES=str(images), EXTRA_VARS="a=1")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    site, verify = (machine.home / "called").read_text().splitlines()
    order = [
        "inventory/local",
        f"@{images}/vars.yml",
        f"vantage_image_archive_dir={images}",
        f"@{machine.home}/vars.yml",
        "a=1",
        "site.yml",
    ]
    places = [site.find(word) for word in order]
    assert -1 not in places
    assert places == sorted(places)
    assert verify.endswith("playbooks/verify.yml")


def test_a_second_run_at_the_same_time_is_refused(machine: Machine, project: Path) -> None:
    machine.home.mkdir()
    with (machine.home / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = machine.run(PROJECT=str(project))
    assert answer.returncode == 1
    assert f"tail -f {machine.log}" in answer.stderr
    assert not machine.log.exists()


def test_it_installs_the_ansible_that_the_tests_run_with() -> None:
    pins = [
        re.findall(r"^ansible(?:-core)?==.*;.*$", ((ROOT / provision.PINS).parent / name).read_text(), re.MULTILINE)
        for name in ("dev.txt", "ansible.txt")
    ]
    assert pins[0] == pins[1]
    # One for Python 3.11 and one for later versions.
    assert len(pins[0]) == 4


def test_a_shared_checkout_is_copied_without_what_belongs_to_the_host(machine: Machine, project: Path) -> None:
    installed(machine, project)
    left_out = [".git/config", ".venv/bin/python", "inventory/local/group_vars/all/images.yml"]
    for name in [*left_out, "inventory/local/group_vars/all/main.yml"]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("---\n")
    (project / "site.yml").chmod(0o666)
    answer = machine.run(PROJECT=str(project))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    copy = machine.home / "project"
    assert not [name for name in left_out if (copy / name).exists()]
    assert (copy / "inventory/local/group_vars/all/main.yml").exists()
    # Ansible ignores the configuration in a directory that others can write to.
    assert (copy / "site.yml").stat().st_mode & 0o022 == 0


def test_images_are_downloaded_from_a_url_once(machine: Machine, project: Path, tmp_path: Path) -> None:
    installed(machine, project)
    served = tmp_path / "served"
    served.mkdir()
    (served / "index.json").write_text('{"docker.io/grafana/loki:3": {"file": "loki.tar.gz"}}')
    (served / "vars.yml").write_text("---\n")
    (served / "loki.tar.gz").write_text("image")
    os.utime(served / "index.json", (0, 0))
    # curl … --output FILE URL
    machine.stub(
        "curl", f'while [ $# -gt 2 ]; do shift; done; echo "$2" >>{tmp_path}/urls; cp -p {served}/"${{2##*/}}" "$1"'
    )
    for _ in range(2):
        answer = machine.run(PROJECT=str(project), IMAGES="https://images.example/folder/")
        assert answer.returncode == 0, answer.stdout + answer.stderr
    urls = (tmp_path / "urls").read_text().split()
    assert urls.count("https://images.example/folder/loki.tar.gz") == 1
    assert urls.count("https://images.example/folder/index.json") == 2
