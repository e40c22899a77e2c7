"""A package index on 127.0.0.1 for the time of one image build.

Inside a build there is neither this machine's pip configuration nor its list of certificate authorities. So pip
fetches the wheels out here, where both are right, and the build installs them from this index, by the same hashes.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import ImageError
from .gobuild import architecture

_PLATFORMS = {
    "amd64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any"),
    "arm64": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "any"),
}


def _pip(cache: Path) -> Path:
    """Return a Python with pip: this one, else one in a venv under the cache."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return Path(sys.executable)
    home = cache / "work" / "pip"
    python = home / "bin" / "python3"
    if not python.is_file():
        venv.create(home, with_pip=True)
    return python


def download(requirements: Sequence[Path], target: Path, python_version: str, cache: Path) -> None:
    """Fetch the wheels of hashed requirement files into `target`, for the image's Python, complete or not at all."""
    if target.is_dir():
        return
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in requirements:
        command = [str(_pip(cache)), "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps",
                   "--only-binary=:all:", "--python-version", python_version, "--implementation", "cp"]  # fmt: skip
        for tag in _PLATFORMS[architecture()]:
            command += ["--platform", tag]
        done = subprocess.run([*command, "-r", str(path), "-d", str(partial)],
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode != 0:
            raise ImageError(f"wheels of {path.name}", f"pip could not fetch them:\n{done.stderr.strip()[-1500:]}",
                             "check that the package index can be reached and the hashes are current")  # fmt: skip
    partial.rename(target)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serve(wheels: Path, site: Path) -> Iterator[str]:
    """Serve the folder `wheels` as a simple index laid out under `site`; yields its URL."""
    shutil.rmtree(site, ignore_errors=True)
    for wheel in sorted(wheels.glob("*.whl")):
        project = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        page = site / "simple" / project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as stream:
            stream.write(f'<a href="/wheels/{wheel.name}">{wheel.name}</a>\n')
    (site / "wheels").symlink_to(wheels)
    handler = functools.partial(_Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
    finally:
        server.shutdown()
        server.server_close()
        shutil.rmtree(site, ignore_errors=True)
