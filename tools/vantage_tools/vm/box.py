"""Build a Vagrant box for libvirt, or a cloud disk, from Debian's packages alone: `vantage box`.

No root, loop device or mount is needed: mke2fs fills the file system from a directory, and GRUB comes from the Debian
inside. Settings: VANTAGE_BOX_DISK_GB (default 20; sparse) and VANTAGE_DEBIAN_MIRROR (for the build and in the VM).
"""

from __future__ import annotations

import enum
import hashlib
import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
import uuid
from pathlib import Path
from typing import Annotated

import typer

from vantage_tools.errors import UserError
from vantage_tools.paths import cache_dir
from vantage_tools.process import capture, last_lines, lock, run
from vantage_tools.vm import host_tools
from vantage_tools.waiting import step

# What a Debian server has and the playbook relies on. The cloud kernel has the virtio drivers and little else.
PACKAGES = """
    linux-image-cloud-amd64 initramfs-tools zstd grub-pc-bin grub-common systemd-sysv systemd-resolved systemd-timesyncd
    libpam-systemd dbus udev kmod apparmor openssh-server sudo python3 ca-certificates iproute2 iputils-ping procps less
"""
BOX_PACKAGES = "python3-apt rsync curl"
CLOUD_PACKAGES = "cloud-init netplan.io cloud-guest-utils"
# GRUB is in the gap before the file system.
PARTITION_START = 1024 * 1024
MIN_DISK_GB = 4
# GRUB must know every feature, and each version of mke2fs has other defaults.
EXT4_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)

FILES = {
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/fstab": "UUID={uuid} / ext4 errors=remount-ro 0 1\n",
    # update-grub would look for a disk that does not exist yet. Debian keeps both links on its newest kernel.
    "boot/grub/grub.cfg": """\
set timeout=0
menuentry "Debian" {{
  linux /vmlinuz root=UUID={uuid} ro console=tty0 console=ttyS0,115200
  initrd /initrd.img
}}
""",
}
# Each VM gets its own host keys and machine id; an empty machine-id file makes systemd write one.
SETUP = """\
systemctl --quiet enable systemd-networkd systemd-resolved systemd-timesyncd ssh
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
modules='biosdisk part_msdos ext2 normal linux echo test'
grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,msdos1)/boot/grub' $modules
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: >/etc/machine-id
# systemd would otherwise rebuild its caches at the first start.
touch /etc/.updated /var/.updated
"""
# What cloud-init would do: network, host keys, a user.
BOX_FILES = {
    # Docker's own bridges must not match. libvirt's DHCP server is asked for a VM's address by its MAC.
    "etc/systemd/network/80-dhcp.network": """\
[Match]
Name=en* eth*

[Network]
DHCP=yes

[DHCPv4]
ClientIdentifier=mac
""",
    "etc/systemd/system/ssh-host-keys.service": """\
[Unit]
Description=Create this machine's SSH host keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
""",
    "etc/ssh/sshd_config.d/vagrant.conf": "PasswordAuthentication no\nUseDNS no\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "etc/vagrant_key.pub": "{public_key}",
}
BOX_SETUP = """\
systemctl --quiet enable ssh-host-keys
useradd --create-home --shell /bin/bash vagrant
install -d -m 0700 -o vagrant -g vagrant /home/vagrant/.ssh
install -m 0600 -o vagrant -g vagrant /etc/vagrant_key.pub /home/vagrant/.ssh/authorized_keys
rm /etc/vagrant_key.pub
"""
VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.ssh.private_key_path = File.expand_path("vagrant_key", __dir__)
  config.ssh.insert_key = false
end
"""


class Suite(enum.StrEnum):
    """The Debian release; trixie is 13, bookworm 12."""

    TRIXIE = "trixie"
    BOOKWORM = "bookworm"

    @property
    def release(self) -> int:
        return {"trixie": 13, "bookworm": 12}[self]


def box(
    suite: Annotated[Suite, typer.Argument()] = Suite.TRIXIE,
    force: Annotated[bool, typer.Option("--force", help="build it even if it is up to date")] = False,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="a disk for clouds: cloud-init creates user and network")
    ] = False,
) -> Path:
    """Build a Vagrant box from Debian's packages."""
    size, mirror = os.environ.get("VANTAGE_BOX_DISK_GB") or "20", os.environ.get("VANTAGE_DEBIAN_MIRROR", "")
    if not size.isdecimal() or int(size) < MIN_DISK_GB:
        raise UserError(f"invalid disk size: VANTAGE_BOX_DISK_GB={size} (a whole number of GB, {MIN_DISK_GB} or more).")
    name, boxes = f"debian-{suite.release}", cache_dir() / "boxes"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UserError(
            f"a box can be built only on Linux x86-64; this is {platform.system()} {platform.machine()}.",
            f"copy {name}.box and {name}.json from such a machine to {boxes}, or set VANTAGE_BOX",
        )
    host_tools.install("box")
    result = boxes / (f"{name}-cloud.qcow2" if cloud else f"{name}.box")
    inputs = result.with_suffix(".inputs")
    fingerprint = hashlib.sha256(f"{Path(__file__).read_text()} {suite} {size} {mirror}".encode()).hexdigest()
    with lock(boxes / ".lock"):
        boxes.chmod(0o700)  # it has the private key
        if not force and result.exists() and inputs.exists() and inputs.read_text() == fingerprint:
            step(f"{result} is up to date")
            return result
        for folder in boxes.glob(".making-*"):
            remove(folder)  # of a build that was killed
        key = boxes / "vagrant_key"
        if not (key.exists() and key.with_suffix(".pub").exists()):
            # Vagrant's well-known key would open the VM to everyone.
            key.unlink(missing_ok=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vantage box", "-f", key)
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=boxes))
        try:
            root_id = str(uuid.uuid4())
            step(f"Debian {suite.release}: download and unpack packages (about a minute)")
            files = FILES if cloud else FILES | BOX_FILES
            values = {"uuid": root_id, "public_key": key.with_suffix(".pub").read_text()}
            write_overlay(work / "overlay.tar", {path: text.format(**values) for path, text in files.items()})
            make_tree(work, suite, mirror, cloud)
            step("fill the disk image")
            make_disk(work, int(size), root_id)
            step("compress")
            run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", work / "disk.raw", work / "box.img")
            if cloud:
                (work / "box.img").replace(result)
            else:
                pack_box(work, int(size), key, result)
            inputs.write_text(fingerprint)
        finally:
            remove(work)
    step(f"built {result} ({result.stat().st_size >> 20} MB)")
    return result


def write_overlay(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o440 if "sudoers" in name else 0o644
            archive.addfile(member, io.BytesIO(text.encode()))


def make_tree(work: Path, suite: Suite, mirror: str, cloud: bool) -> None:
    """Write the root file system to tree.tar; raises UserError with mmdebstrap's last lines."""
    setup = SETUP if cloud else SETUP + BOX_SETUP
    packages = f"{PACKAGES} {CLOUD_PACKAGES if cloud else BOX_PACKAGES}".split()
    command = [
        "mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", "--variant=minbase",
        "--architectures=amd64", f"--include={','.join(packages)}",
        f"--customize-hook=tar-in {shlex.quote(str(work / 'overlay.tar'))} /",
        f'--customize-hook=chroot "$1" sh -euc {shlex.quote(setup)}',
        suite, str(work / "tree.tar"), *([mirror] if mirror else []),
    ]  # fmt: skip
    done = capture(*command)
    if done.returncode:
        raise UserError(
            f"mmdebstrap failed:\n{last_lines(done.stdout, 25)}",
            "check that a Debian mirror is reachable (VANTAGE_DEBIAN_MIRROR), and without root, user namespaces",
        )


def make_disk(work: Path, disk_gb: int, root_id: str) -> None:
    """Write disk.raw: one partition with the files of tree.tar, bootable by GRUB."""
    tree, disk = work / "tree.tar", work / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(disk_gb * 1024**3)
    table = f"label: dos\nstart={PARTITION_START // 512}, type=83, bootable\n"
    subprocess.run(["sfdisk", "--quiet", disk], check=True, input=table, text=True)
    blocks = (disk_gb * 1024**3 - PARTITION_START) // 4096
    options = f"offset={PARTITION_START},lazy_itable_init=1,root_owner=0:0"
    # Unpacked and read back in one user namespace, so that owners are right without root. The package lists are empty
    # and must look old: Ansible would otherwise trust them for an hour.
    script = """
      mkdir tree; tar -x --numeric-owner --xattrs --xattrs-include='*' -f "$1" -C tree --exclude='./dev/*'
      touch -d @0 tree/var/lib/apt/lists
      mke2fs -q -F -t ext4 -b 4096 -O "$2" -E "$3" -U "$4" -L root -d tree "$5" "$6"
      rm -rf tree"""
    arguments = [str(tree), EXT4_FEATURES, options, root_id, str(disk), str(blocks)]
    run(*namespace(), "sh", "-euc", f"cd {shlex.quote(str(work))}\n{script}", "sh", *arguments)
    with tarfile.open(tree) as archive, disk.open("r+b") as file:
        for path, offset, size in (("usr/lib/grub/i386-pc/boot.img", 0, 440), ("boot/grub/core.img", 512, -1)):
            member = archive.extractfile(f"./{path}")
            assert member, path
            file.seek(offset)
            file.write(member.read(size))


def pack_box(work: Path, disk_gb: int, key: Path, result: Path) -> None:
    """Write the box, and the catalog by whose version Vagrant notices that there is a newer box."""
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": disk_gb}
    (work / "metadata.json").write_text(json.dumps(metadata))
    (work / "Vagrantfile").write_text(VAGRANTFILE)
    shutil.copy(key, work)
    with tarfile.open(work / "result.box", "w:gz", compresslevel=1) as archive:  # the image is compressed already
        for name in ("metadata.json", "Vagrantfile", key.name, "box.img"):
            archive.add(work / name, name)
    version = time.strftime("%Y%m%d.%H%M%S", time.gmtime())
    providers = [{"name": "libvirt", "url": f"file://{result}"}]
    catalog = {"name": f"vantage/{result.stem}", "versions": [{"version": version, "providers": providers}]}
    (work / "result.box").replace(result)
    result.with_suffix(".json").write_text(json.dumps(catalog, indent=2) + "\n")


def namespace() -> list[str]:
    """Return what starts a command as root of a user namespace, unless this user is root."""
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def remove(folder: Path) -> None:
    """Remove a temporary directory, whose files may belong to ids of a user namespace."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        capture(*namespace(), "rm", "-rf", folder)
