"""Root file systems: from Debian's packages, or nearly empty for one static program."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from vantage_tools.errors import UserError
from vantage_tools.process import capture, last_lines

from .archive import EPOCH, new_layer
from .manifest import Base

_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_DIRECTORIES = {
    "/etc": 0o755, "/var": 0o755, "/dev": 0o755, "/proc": 0o755, "/sys": 0o755, "/root": 0o700,
    "/tmp": 0o1777, "/var/tmp": 0o1777,
}  # fmt: skip
_MMDEBSTRAP = [
    "mmdebstrap", "--variant=minbase", "--format=tar",
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "info", "locale", "doc")),
    # Licences stay, because the images are passed on to hosts.
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    # Created at first boot: two machines with one id are taken for one.
    '--customize-hook=rm -f "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"',
    '--customize-hook=: > "$1/etc/machine-id"',
]  # fmt: skip


def make_base(base: Base, target: Path) -> None:
    """Write the root file system `base` as a plain tar; raises UserError with mmdebstrap's last lines."""
    # A base with a key of its own is another distribution, which Debian's mirror does not have.
    mirror = "VANTAGE_UBUNTU_MIRROR" if base.key else "VANTAGE_DEBIAN_MIRROR"
    command = [*_MMDEBSTRAP, f"--include={','.join(base.packages)}"]
    command += [f"--components={','.join(base.components)}"] if base.components else []
    command += [f"--keyring={base.key}"] if base.key else []
    command += [base.suite, str(target), *filter(None, [os.environ.get(mirror)])]
    done = capture(*command, env=os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"})
    if done.returncode != 0:
        raise UserError(
            f"base {base.name}: mmdebstrap {base.suite} failed; its last lines:\n{last_lines(done.stdout, 12)}",
            f"Check that its packages are reachable, or set {mirror} to another mirror.",
        )


def make_scratch(target: Path, source: Path, users: Mapping[str, int]) -> None:
    """Write what a static program needs: certificates, time zones, /etc/passwd and a /tmp.

    `source` is the tar of a Debian base, for certificates and zones: this machine's may hold private authorities.
    `users` are names and numbers besides root and nobody.
    """
    accounts = {"root": 0, "nobody": 65534, **users}
    with new_layer(target) as layer, tarfile.open(source) as tar:
        for path, mode in _DIRECTORIES.items():
            layer.directory(path, mode)
        passwd = (f"{name}:x:{number}:{number}:{name}:/{'root' if number == 0 else ''}:/sbin/nologin\n"
                  for name, number in accounts.items())  # fmt: skip
        layer.data("/etc/passwd", "".join(passwd).encode())
        layer.data("/etc/group", "".join(f"{name}:x:{number}:\n" for name, number in accounts.items()).encode())
        # Go's resolver reads it: local names first, then DNS.
        layer.data("/etc/nsswitch.conf", b"hosts: files dns\n")
        members = {member.name.removeprefix("./"): member for member in tar}
        for name, member in sorted(members.items()):
            if name == _CERTIFICATES or (name.startswith("usr/share/zoneinfo/") and "/right/" not in name):
                if member.issym():
                    layer.symlink(name, member.linkname)
                elif stream := tar.extractfile(member):
                    layer.data(name, stream.read())
