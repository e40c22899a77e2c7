"""`vantage box` and libvirt refuse what they cannot do before they change anything."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from fakes import fake_program
from typer.testing import CliRunner
from vantage_tools.cli import app
from vantage_tools.errors import UserError
from vantage_tools.vm import box, libvirt

KVM = "  QEMU: Checking for hardware virtualization        : {}\n  QEMU: Checking if device /dev/kvm exists   : {}\n"
KVM += "  QEMU: Checking if device /dev/kvm is accessible   : {}\n  QEMU: Checking if IOMMU is enabled : WARN (no)\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_unknown_release_is_a_usage_error(cache: Path) -> None:
    result = CliRunner().invoke(app, ["box", "sarge"])
    assert result.exit_code == 2
    assert "sarge" in result.output
    assert not cache.exists()


@pytest.mark.parametrize("size", ["2", "twenty"])
def test_a_disk_that_is_too_small_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("VANTAGE_BOX_DISK_GB", size)
    with pytest.raises(UserError, match=f"VANTAGE_BOX_DISK_GB={size}"):
        box.box()
    assert not cache.exists()


def test_other_platform_gets_the_fix_for_a_missing_box(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box.platform, "machine", lambda: "arm64")
    with pytest.raises(UserError, match="arm64") as error:
        box.box()
    assert "debian-13.json" in error.value.fix
    assert not cache.exists()


def test_only_sudoers_is_readable_by_root_and_group_alone(tmp_path: Path) -> None:
    box.write_overlay(tmp_path / "overlay.tar", box.FILES | box.BOX_FILES)
    with tarfile.open(tmp_path / "overlay.tar") as archive:
        modes = {member.name: member.mode for member in archive}
        assert {member.uid for member in archive} == {0}
    assert [path for path, mode in modes.items() if mode == 0o440] == ["etc/sudoers.d/vagrant"]
    assert set(modes.values()) == {0o440, 0o644}


def test_a_box_has_its_key_and_a_catalog_with_its_version(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "box.img").write_text("image")
    key = tmp_path / "vagrant_key"
    key.write_text("private key")
    box.pack_box(work, 20, key, tmp_path / "debian-13.box")
    with tarfile.open(tmp_path / "debian-13.box") as archive:
        assert set(archive.getnames()) == {"metadata.json", "Vagrantfile", "vagrant_key", "box.img"}
        metadata = archive.extractfile("metadata.json")
        assert metadata is not None
        assert json.load(metadata) == {"provider": "libvirt", "format": "qcow2", "virtual_size": 20}
    catalog = json.loads((tmp_path / "debian-13.json").read_text())
    assert catalog["name"] == "vantage/debian-13"
    (version,) = catalog["versions"]
    assert version["version"]
    assert version["providers"] == [{"name": "libvirt", "url": f"file://{tmp_path}/debian-13.box"}]


@pytest.mark.parametrize(
    ("results", "driver"),
    [
        (("PASS", "PASS", "PASS"), "kvm"),
        (("FAIL (Only emulated CPUs are available)", "PASS", "PASS"), "qemu"),
        (("PASS", "FAIL (Check that the kvm-intel module is loaded)", "PASS"), "qemu"),
        (("PASS", "PASS", "FAIL (Check /dev/kvm is world writable)"), "qemu"),
    ],
)
def test_kvm_is_used_only_if_libvirt_finds_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: tuple[str, ...], driver: str
) -> None:
    # Newer versions of libvirt quote the device.
    for text in (KVM, KVM.replace("/dev/kvm", "'/dev/kvm'")):
        # It exits with 1 after a warning.
        script = f"cat <<'END'\n{text.format(*results)}\nEND\nexit 1"
        fake_program(tmp_path, "virt-host-validate", script, monkeypatch)
        assert libvirt.find_driver() == driver


def test_without_libvirt_the_driver_is_emulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert libvirt.find_driver() == "qemu"
    with pytest.raises(UserError) as error:
        libvirt.start()
    assert "host-tools vm" in error.value.fix
