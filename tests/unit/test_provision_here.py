"""scripts/provision-here says what is wrong, why and what to do, in its status file and on the console."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from rendering import ROOT

SCRIPT = ROOT / "scripts/provision-here"


class Machine:
    """A place of its own for the script, with programs in front of the real ones that must not run here."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "opt"
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.stub("id", "echo 0")
        self.stub("sudo", "exit 1")
        self.stub("apt-get", 'echo "E: Unable to locate package" >&2; exit 100')
        self.stub("dnf", "exit 1")
        # The script installs what a machine lacks. This one lacks nothing, whatever the tests run on.
        self.stub("curl", 'echo "curl: (6) no network in this test" >&2; exit 6')

    def stub(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, **settings: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("VANTAGE_")}
        python = {"VANTAGE_PYTHON": sys.executable}
        places = {
            "VANTAGE_HOME": str(self.home),
            "VANTAGE_LOG": str(self.log),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        given = {f"VANTAGE_{name}": value for name, value in settings.items()}
        return subprocess.run(
            ["bash", str(SCRIPT)],
            env={**kept, **places, **python, **given},
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
    """A project whose pins are already installed, as far as the script can see."""
    folder = tmp_path / "project"
    (folder / "tools/requirements").mkdir(parents=True)
    (folder / "site.yml").write_text("---\n")
    (folder / "tools/requirements/ansible.txt").write_text("nosuch-package-anywhere==1\n")
    return folder


def installed(machine: Machine, project: Path, playbook: str = "exit 0") -> None:
    """Put a stand-in for the venv where the script made one in an earlier run."""
    python = subprocess.run([sys.executable, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    hashed = subprocess.run(
        f"sha256sum < {project}/tools/requirements/ansible.txt", shell=True, check=True, capture_output=True, text=True
    ).stdout.strip()
    place = machine.home / "venv/bin/ansible-playbook"
    place.parent.mkdir(parents=True)
    place.write_text(f"#!/bin/bash\n{playbook}\n")
    place.chmod(0o755)
    (machine.home / "venv/stamp").write_text(f"{python} {hashed}\n")


def test_a_user_who_is_not_root_is_told_so(machine: Machine) -> None:
    machine.stub("id", "echo 1000")
    answer = machine.run(PROJECT="/anything")
    assert answer.returncode == 1
    assert "must run as root" in answer.stderr
    assert not machine.home.exists()


def test_a_project_that_is_not_set_is_named(machine: Machine) -> None:
    assert "VANTAGE_PROJECT is not set" in machine.refused("project")["reason"]


def test_a_path_that_is_not_there_is_named(machine: Machine) -> None:
    assert "/nowhere/at/all" in machine.refused("project", PROJECT="/nowhere/at/all")["reason"]


def test_a_file_that_is_no_archive_is_named(machine: Machine, tmp_path: Path) -> None:
    wrong = tmp_path / "page.tar.gz"
    wrong.write_text("<html>404</html>")
    assert f"{wrong} is no .tar.gz" in machine.refused("project", PROJECT=str(wrong))["reason"]


def test_an_archive_of_something_else_is_refused(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz") as archive:
        archive.add(SCRIPT, "script")
    assert "is not this project" in machine.refused("project", PROJECT=str(other))["reason"]


def test_an_archive_with_another_hash_is_refused(machine: Machine, project: Path, tmp_path: Path) -> None:
    packed = tmp_path / "vantage.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(project, "vantage")
    status = machine.refused("project", PROJECT=str(packed), PROJECT_SHA256="0" * 64)
    assert "0" * 64 in status["reason"]
    assert not (machine.home / "project").exists()


def test_a_host_that_does_not_answer_is_named_with_the_reason(machine: Machine) -> None:
    machine.stub("curl", 'echo "curl: (6) Could not resolve host: vantage.invalid" >&2; exit 6')
    url = "https://vantage.invalid/vantage.tar.gz"
    reason = machine.refused("project", PROJECT=url)["reason"]
    assert url in reason
    assert "Could not resolve host" in reason


def test_a_python_that_is_too_old_is_named(machine: Machine) -> None:
    machine.stub("python-old", '[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    status = machine.refused("python", PYTHON=str(machine.bin / "python-old"))
    assert "Python 3.9.2" in status["reason"]
    assert "3.11" in status["reason"]


def test_an_index_that_does_not_have_ansible_is_named(machine: Machine, project: Path) -> None:
    machine.stub("pip", 'echo "ERROR: No matching distribution found for ansible" >&2; exit 1')
    machine.stub(
        "python-new",
        f'case "$*" in "-m venv"*) mkdir -p "$3/bin"; cp {machine.bin}/pip "$3/bin/pip" ;; *) exec {sys.executable} "$@" ;; esac',
    )
    reason = machine.refused("ansible", PROJECT=str(project), PYTHON=str(machine.bin / "python-new"))["reason"]
    assert "pip could not install Ansible" in reason
    assert "No matching distribution" in reason


def test_a_folder_without_image_archives_is_named(machine: Machine, project: Path, tmp_path: Path) -> None:
    installed(machine, project)
    reason = machine.refused("images", PROJECT=str(project), IMAGES=str(tmp_path / "empty"))["reason"]
    assert f"there is no index.json with vars.yml in {tmp_path}/empty" in reason


def test_a_missing_image_archive_is_named(machine: Machine, project: Path, tmp_path: Path) -> None:
    installed(machine, project)
    images = tmp_path / "images"
    images.mkdir()
    (images / "index.json").write_text('{"docker.io/grafana/loki:3": {"file": "loki.tar.gz"}}')
    (images / "vars.yml").write_text("---\n")
    reason = machine.refused("images", PROJECT=str(project), IMAGES=str(images))["reason"]
    assert f"{images}/loki.tar.gz is missing" in reason


def test_what_ansible_says_is_the_reason(machine: Machine, project: Path) -> None:
    installed(
        machine, project, 'echo "[ERROR]: Task failed: localhost has 900 MiB of memory, the stack needs 1800"; exit 2'
    )
    status = machine.refused("site.yml", PROJECT=str(project))
    assert status["reason"] == "Task failed: localhost has 900 MiB of memory, the stack needs 1800"


def test_what_a_program_says_that_failed_is_in_the_reason(machine: Machine, project: Path) -> None:
    said = "[ERROR]: Task failed: Module failed: non-zero return code\\n    stderr: |-\\n        no room left\\n    stderr_lines: x"
    installed(machine, project, f"printf '{said}\\n'; exit 2")
    reason = machine.refused("site.yml", PROJECT=str(project))["reason"]
    assert reason == "Task failed: Module failed: non-zero return code: no room left"


def test_a_run_after_a_failed_one_goes_on_with_the_same_settings(machine: Machine, project: Path) -> None:
    installed(machine, project, "[[ -e ../mended ]]")
    machine.refused("site.yml", PROJECT=str(project), EXTRA_VARS="a=1 b='x y'")
    (machine.home / "mended").touch()
    answer = machine.run()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert machine.status()["state"] == "done"
    assert (machine.home / "provision").read_text() == SCRIPT.read_text()


def test_images_and_variables_reach_the_playbook_in_order(machine: Machine, project: Path, tmp_path: Path) -> None:
    """What is known on the machine wins over what vars.yml says of the machine that made the images."""
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
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        answer = machine.run(PROJECT=str(project))
    assert answer.returncode == 1
    assert "another run is at work" in answer.stderr


def test_it_installs_the_ansible_that_the_tests_run_with() -> None:
    pins = [
        re.findall(r"^ansible(?:-core)?==.*;.*$", (ROOT / "tools/requirements" / name).read_text(), re.MULTILINE)
        for name in ("dev.txt", "ansible.txt")
    ]
    assert pins[0] == pins[1]
    # One for Python 3.11 and one for later versions.
    assert len(pins[0]) == 4
