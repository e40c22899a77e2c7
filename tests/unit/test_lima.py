"""The Lima file agrees with the Vagrantfile and runs the provisioning program."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT

TEMPLATE = ROOT / "tools/machines/lima/vantage.yaml"


@pytest.fixture(scope="module")
def lima() -> dict[str, Any]:
    return dict(yaml.safe_load(TEMPLATE.read_text(encoding="utf-8")))


def test_it_forwards_the_ports_of_the_vagrantfile_and_no_others(lima: dict[str, Any]) -> None:
    *forwards, last = lima["portForwards"]
    default = re.search(r'ENV\.fetch\("VANTAGE_PORTS", "([\d ]+)"\)', (ROOT / "Vagrantfile").read_text())
    assert default
    assert [forward["guestPort"] for forward in forwards] == [int(port) for port in default[1].split()]
    # Lima's own default address is 127.0.0.1; the first rule that fits wins.
    assert all(forward["hostPort"] == forward["guestPort"] for forward in forwards)
    assert not any("hostIP" in forward for forward in forwards)
    # Only a guest address of 0.0.0.0 that need not be that one fits all addresses.
    everywhere = {"guestIP": "0.0.0.0", "guestIPMustBeZero": False, "proto": "any", "guestPortRange": [1, 65535]}
    assert last == everywhere | {"ignore": True}


def test_both_kinds_of_processors_have_an_image(lima: dict[str, Any]) -> None:
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    assert {image["arch"] for image in lima["images"]} == set(names)
    assert all(names[image["arch"]] in image["location"] for image in lima["images"])


def test_every_parameter_is_used(lima: dict[str, Any]) -> None:
    """Lima refuses parameters that nothing uses, and templates without their parameter."""
    used = set(re.findall(r"\{\{\.Param\.(\w+)\}\}", TEMPLATE.read_text()))
    assert used == set(lima["param"])


def provisioning(lima: dict[str, Any], root: Path) -> str:
    """The script for a VM whose / is `root`."""
    (entry,) = lima["provision"]
    assert entry["mode"] == "system"
    text = str(entry["script"])
    for name, value in lima["param"].items():
        text = text.replace("{{.Param." + name + "}}", value)
    return text.replace("/opt/vantage", f"{root}/opt").replace("/mnt/vantage", f"{root}/mnt").replace("sleep 2", ":")


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


def test_it_runs_the_provisioning_program(lima: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "mnt/tools/machines/provision.py"
    script.parent.mkdir(parents=True)
    script.write_text("import os; print('project', os.environ['VANTAGE_PROJECT'])")
    answer = run(provisioning(lima, tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == f"project {tmp_path}/mnt"


def test_a_provisioned_vm_is_not_provisioned_at_its_next_start(lima: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/status").write_text("state: done\n")
    answer = run(provisioning(lima, tmp_path))
    assert (answer.returncode, answer.stdout) == (0, "")
