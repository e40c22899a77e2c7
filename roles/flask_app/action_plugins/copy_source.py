"""Copies the files of a source folder to a directory of the host, all in one archive."""

from __future__ import annotations

import os
import shlex
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader


def pack(folder: str, names: Iterable[str], file: IO[bytes]) -> None:
    """Write a gzipped tar with these files of a folder; links are followed.

    Everyone may read them, whatever the umask of the checkout, because the app runs as a user of its own.
    """
    # GNU's format holds names as bytes, whatever their encoding.
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            with Path(folder, name).open("rb") as content:
                status = os.fstat(content.fileno())
                info = tarfile.TarInfo(name)
                info.size, info.mtime = status.st_size, int(status.st_mtime)
                info.mode = 0o755 if status.st_mode & 0o100 else 0o644
                archive.addfile(info, content)


class ActionModule(ActionBase):
    """Arguments: `source`, the folder on the controller, and `path`, an empty directory of the host."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        source, path = str(self._task.args["source"]), str(self._task.args["path"])
        names = filter_loader.get("source_files").j2_function(source)
        with tempfile.NamedTemporaryFile(prefix="vantage-source-", suffix=".tar.gz") as file:
            pack(source, names, file)
            file.flush()
            folder = self._make_tmp_path()
            archive = self._connection._shell.join_path(folder, "source.tar.gz")
            try:
                self._transfer_file(file.name, archive)
                words = ["tar", "--extract", "--gzip", "--no-same-owner", "--preserve-permissions"]
                words += [f"--file={archive}", f"--directory={path}"]
                # The umask is that of folders, which the archive does not list.
                done = self._low_level_execute_command(f"umask 022; {shlex.join(words)}", sudoable=True)
            finally:
                self._remove_tmp_path(folder)
        if done["rc"]:
            raise AnsibleActionFail(
                f"cannot unpack source {source} in {path}: {(done['stderr'] or done['stdout']).strip()}"
            )
        return result | {"changed": True, "files": len(names)}
