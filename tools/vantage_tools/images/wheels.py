"""A package index on 127.0.0.1 for the time of one image build.

A build has neither this machine's pip configuration nor its certificate authorities. So pip fetches the wheels outside,
and the build installs them from this index, checked by the same hashes.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vantage_tools.errors import UserError

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
        done = subprocess.run([*command, "-r", str(path)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(f"pip cannot fetch the wheels of {path.name}:\n{done.stderr.strip()[-1500:]}",
                            "Check that the package index is reachable and the hashes are current.")  # fmt: skip
    partial.rename(target)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serve(wheels: Path, site: Path) -> Iterator[str]:
    """Serve the folder `wheels` as a simple index laid out under `site`; yields its URL."""
    shutil.rmtree(site, ignore_errors=True)
    for wheel in sorted(wheels.glob("*.whl")):
        page = site / "simple" / re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower() / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as stream:
            stream.write(f'<a href="/wheels/{wheel.name}">{wheel.name}</a>\n')
    (site / "wheels").symlink_to(wheels)
    handler = functools.partial(_QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
        finally:
            server.shutdown()
            shutil.rmtree(site, ignore_errors=True)
