"""A package index on 127.0.0.1 for the time of one image build.

A build has neither this machine's pip configuration nor its certificate authorities. So pip fetches the wheels outside,
and the build installs them from this index, checked by the same hashes.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vantage_tools.errors import UserError
from vantage_tools.process import capture

from .gobuild import architecture

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


def download(requirements: Sequence[Path], target: Path, python_version: str) -> None:
    """Fetch the wheels of hashed requirement files into `target`, for the image's Python; complete or not at all."""
    if target.is_dir():
        return
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    platforms = [f"--platform={name}_{_MACHINES[architecture()]}" for name in _PLATFORMS] + ["--platform=any"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps",
               "--only-binary=:all:", f"--python-version={python_version}", "--implementation=cp", *platforms,
               "-d", str(partial)]  # fmt: skip
    for path in requirements:
        if (done := capture(*command, "-r", path)).returncode:
            raise UserError(f"pip cannot fetch the wheels of {path.name}:\n{done.stdout.strip()[-1500:]}",
                            "Check that the package index is reachable and the hashes are current.")  # fmt: skip
    partial.rename(target)


class _Index(http.server.SimpleHTTPRequestHandler):
    """Lists all wheels as the page of every project: pip takes those of the project's name."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.rpartition("/")[2])

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serve(wheels: Path) -> Iterator[str]:
    """Serve the folder `wheels` as a package index; yields its URL."""
    handler = functools.partial(_Index, directory=str(wheels))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
        finally:
            server.shutdown()
