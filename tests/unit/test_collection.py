"""The roles and playbooks as a collection: built, installed elsewhere, and used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rendering import ROOT, roles

BIN = Path(sys.executable).parent
NAME = "vantage.stack"


class Installed:
    """The collection in a folder of its own, away from this repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
        hosts = {"app": {"hosts": {"here": here}}, "monitoring": {"hosts": {"here": None}}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        # A host of Vantage has systemd and so the journal's group; what the tests run on need not.
        self.getent = folder / "bin/getent"
        self.getent.parent.mkdir()
        self.getent.write_text("#!/bin/sh\necho systemd-journal:x:999:\n")
        self.getent.chmod(0o755)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{self.getent.parent}:{os.environ['PATH']}",
        }
        return subprocess.run(
            [str(BIN / program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment,
            check=False,
        )

    def site(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("ansible-playbook", "-i", "hosts.yml", f"{NAME}.site", "--check", *arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("collection")
    subprocess.run([sys.executable, ROOT / "scripts/collection", folder], check=True, capture_output=True)
    (archive,) = folder.glob("vantage-stack-*.tar.gz")
    made = Installed(folder)
    done = made.run(
        "ansible-galaxy", "collection", "install", str(archive), "--offline", "-p", str(folder / "collections")
    )
    assert done.returncode == 0, done.stderr
    return made


def test_ansible_doc_shows_every_role_of_the_collection(installed: Installed) -> None:
    done = installed.run("ansible-doc", "--type", "role", "--json", *(f"{NAME}.{role}" for role in roles()))
    assert done.returncode == 0, done.stderr
    assert {name for name, role in json.loads(done.stdout).items() if role["entry_points"]} == {
        f"{NAME}.{role}" for role in roles()
    }


def test_the_collection_refuses_a_misspelt_variable(installed: Installed) -> None:
    done = installed.site("-e", "prometheus_prot=1")
    assert done.returncode != 0
    assert "did you mean prometheus_port?" in done.stdout + done.stderr


# The engine's role would look for packages of this machine.
@pytest.mark.timeout(900)
def test_the_collection_converges_in_check_mode(installed: Installed) -> None:
    done = installed.site("--skip-tags", "always,docker")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for service in (
        "prometheus",
        "loki",
        "jaeger",
        "grafana",
        "alertmanager",
        "promtail",
        "storefront",
        "node-exporter",
    ):
        assert f"container_service : Write the unit of {service}]" in done.stdout, service
