"""Root file systems: from Debian's packages, or nearly empty for one static program."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .archive import EPOCH, Layer, new_layer
from .errors import ImageError
from .manifest import Base
from .progress import Progress

_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_DIRECTORIES = {
    "/etc": 0o755, "/var": 0o755, "/dev": 0o755, "/proc": 0o755, "/sys": 0o755, "/root": 0o700,
    "/tmp": 0o1777, "/var/tmp": 0o1777,
}  # fmt: skip
_DPKG_EXCLUDES = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    # Licences stay: the images are passed on to hosts.
    "path-include=/usr/share/doc/*/copyright",
]


def make_base(base: Base, target: Path, progress: Progress) -> None:
    """Write the root file system `base` as a plain tar to `target`, unless it is there."""
    if target.is_file():
        return
    partial = target.with_name(target.name + ".partial")
    command = ["mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(base.packages)}"]
    command += [f"--dpkgopt={line}" for line in _DPKG_EXCLUDES]
    # What a first boot must make anew: two machines with one id are taken for one.
    command += ['--customize-hook=rm -f "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"',
                '--customize-hook=: > "$1/etc/machine-id"']  # fmt: skip
    if base.components:
        command.append(f"--components={','.join(base.components)}")
    if base.key:
        command.append(f"--keyring={base.key}")
    command += [base.suite, str(partial)]
    # With a key of its own it is another distribution, which that mirror does not have.
    mirror_variable = "VANTAGE_UBUNTU_MIRROR" if base.key else "VANTAGE_DEBIAN_MIRROR"
    mirror = os.environ.get(mirror_variable)
    if mirror:
        command.append(mirror)
    log = target.with_suffix(".log")
    progress.step(f"{base.suite} packages for {base.name}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(0.5)
                progress.tick(_last_line(log))
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise ImageError(
            f"base {base.name}",
            f"mmdebstrap {base.suite} failed; its last lines:\n{tail}",
            f"check that its packages can be reached (or name another {mirror_variable}); all of it: {log}",
        )
    partial.replace(target)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("I: ")[:60] if lines else ""


def make_scratch(target: Path, source: Path, users: Mapping[str, int]) -> None:
    """Write what a static program needs around it: certificates, time zones, /etc/passwd and a /tmp.

    `source` is the tar of a Debian base, of which certificates and zones are taken: the ones of the building
    machine may hold private authorities. `users` are names and numbers beside root and nobody.
    """
    accounts = {"root": 0, "nobody": 65534, **users}
    with new_layer(target) as layer:
        for path, mode in _DIRECTORIES.items():
            layer.directory(path, mode)
        passwd = [f"{name}:x:{number}:{number}:{name}:/{'root' if number == 0 else ''}:/sbin/nologin"
                  for name, number in accounts.items()]  # fmt: skip
        layer.data("/etc/passwd", ("\n".join(passwd) + "\n").encode())
        layer.data("/etc/group", "".join(f"{n}:x:{i}:\n" for n, i in accounts.items()).encode())
        # Go's resolver reads it: local names first, then DNS.
        layer.data("/etc/nsswitch.conf", b"hosts: files dns\n")
        _copy_from_base(layer, source)


def _copy_from_base(layer: Layer, source: Path) -> None:
    wanted: list[tuple[str, Any]] = []
    with tarfile.open(source) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            zone = name.startswith("usr/share/zoneinfo/") and "/right/" not in name
            if name != _CERTIFICATES and not zone:
                continue
            if member.issym():
                wanted.append((name, member.linkname))
            elif member.isfile() or member.islnk():
                stream = tar.extractfile(member)
                assert stream is not None  # a file and a hard link both have content
                wanted.append((name, stream.read()))
    if not any(name == _CERTIFICATES for name, _ in wanted):
        raise ImageError(str(source), f"holds no /{_CERTIFICATES}", "run: images/vantage-images clean")
    for name, content in sorted(wanted, key=lambda item: item[0]):
        if isinstance(content, str):
            layer.symlink(name, content)
        else:
            layer.data(name, content)
