"""scripts/box, scripts/libvirt and the proofs on a VM refuse what they cannot do before they touch anything."""

from __future__ import annotations

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
