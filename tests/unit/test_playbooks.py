"""Playbooks find roles and plugins without ansible.cfg, which Ansible ignores in a folder that others may write to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rendering import ROOT

PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"app": {"hosts": {"here": here}}, "monitoring": {"hosts": {"here": None}}}))
    return path


def run_playbook(
    playbook: Path, inventory: Path, *arguments: str, config: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a playbook from another folder, by default without a configuration file."""
    if not config:
        config = inventory.with_name("empty.cfg")
        config.touch()
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(playbook), *arguments],
        cwd=inventory.parent,
        env=os.environ | {"ANSIBLE_CONFIG": str(config), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_playbook_finds_its_roles_without_ansible_cfg(playbook: Path, inventory: Path) -> None:
    done = run_playbook(playbook, inventory, "--syntax-check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "misspelt", "meant"),
    [
        ("site.yml", "prometheus_retention_tme", "prometheus_retention_time"),
        ("playbooks/verify.yml", "prometheus_retention_tme", "prometheus_retention_time"),
        ("playbooks/verify.yml", "verify_secnds", "verify_seconds"),
        ("playbooks/verify.yml", "verify_tme", "verify_seconds"),
        ("playbooks/report.yml", "report_shrt", "report_short"),
    ],
)
def test_playbook_refuses_a_misspelt_variable_with_a_plugin_that_it_finds_without_ansible_cfg(
    name: str, misspelt: str, meant: str, inventory: Path
) -> None:
    done = run_playbook(ROOT / name, inventory, "--check", "-e", f"{misspelt}=1d")
    assert done.returncode != 0
    assert misspelt in done.stdout + done.stderr
    assert meant in done.stdout + done.stderr
    assert "failed=1" in done.stdout


def test_the_message_of_a_failed_task_is_printed_once(inventory: Path) -> None:
    tasks = [{"ansible.builtin.fail": {"msg": "wrong port 99999"}}]
    playbook = inventory.with_name("fail.yml")
    playbook.write_text(yaml.safe_dump([{"hosts": "app", "gather_facts": False, "tasks": tasks}]))
    assert run_playbook(playbook, inventory, config=ROOT / "ansible.cfg").stdout.count("99999") == 1
