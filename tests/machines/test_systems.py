"""Every system that site.yml supports, in a system container of its own.

SYSTEMS="debian13 rhel9" tests only these; FULL=1 runs all that `make test` runs on one host.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from machines import SYSTEMS
from vantage_tools.errors import UserError
from vantage_tools.images.cli import load_images
from vantage_tools.paths import ROOT, cache_dir
from vantage_tools.process import prepare_environment, succeeds
from vantage_tools.vm import engine
from vantage_tools.vm.container import image_name

pytestmark = [pytest.mark.long, pytest.mark.timeout(0)]
FOLDER = cache_dir() / "test-systems"
FULL = "molecule test -s default && molecule test -s apps && molecule test -s bare_host"
SHORT = """
    molecule destroy && molecule converge && molecule idempotence &&
        pytest -q tests/integration/test_services.py tests/integration/test_path.py
    result=$?; molecule destroy; exit $result"""


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    prepare_environment()
    FOLDER.mkdir(parents=True, exist_ok=True)
    engine.get_images()


def require_image(system: str) -> None:
    """Skip the test where the system's image cannot be made."""
    if image := os.environ.get("VANTAGE_SYSTEM_IMAGE"):
        if not succeeds("docker", "image", "inspect", image):
            pytest.skip(f"the Docker engine has no image {image}")
    elif system == "rhel9":
        pytest.skip("set VANTAGE_SYSTEM_IMAGE to an image with systemd")
    else:
        try:
            load_images([image_name(system)])
        except UserError as error:
            pytest.skip(f"cannot build its image: {error}")


@pytest.mark.parametrize("system", os.environ.get("SYSTEMS", "").split() or SYSTEMS)
def test_system(system: str) -> None:
    assert system in SYSTEMS
    require_image(system)
    # Molecule keeps its state by directory and scenario; the machine's name keeps two runs apart.
    machine, log = f"vantage-test-{system}", FOLDER / f"{system}.log"
    own = {
        "VANTAGE_SYSTEM": system,
        "VANTAGE_TEST_MACHINE": machine,
        "VANTAGE_TEST_HOST": f"docker://{machine}",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(FOLDER / system),
        "VANTAGE_TEST_INVENTORY": str(FOLDER / system / "inventory"),
        "ANSIBLE_ROLES_PATH": "roles",
    }
    print(f"log: {log}")
    command = FULL if os.environ.get("FULL") else SHORT
    with log.open("w") as output:
        code = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, env=os.environ | own, stdout=output, stderr=output, check=False
        ).returncode
    assert code == 0, log
