"""Checkers out of the archives of the images that will run, without an engine."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from vantage_tools.paths import cache_dir


def find(role: str, program: str) -> Path:
    """Return the program of the role's image; skip the test if `make images` has not got the image."""
    images = cache_dir() / "images"
    index = images / "index.json"
    entries = json.loads(index.read_text(encoding="utf-8")).values() if index.exists() else []
    for entry in entries:
        if entry["name"] == role:
            target = cache_dir() / "tools" / f"{program}-{entry['id'].removeprefix('sha256:')[:12]}"
            if not target.exists():
                extract(images / entry["file"], program, target)
            return target
    pytest.skip(f"no image archive of {role}: run `make images`")


def extract(archive: Path, program: str, target: Path) -> None:
    """Write the program in /bin or /usr/bin of one of the image's layers to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    places = {f"bin/{program}", f"usr/bin/{program}"}
    with tarfile.open(archive) as image:
        for name in json.load(_open(image, "manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=_open(image, name)) as layer:
                for path in [name for name in layer.getnames() if name.removeprefix("./") in places]:
                    new = target.with_suffix(f".{os.getpid()}")
                    with new.open("wb") as out:
                        shutil.copyfileobj(_open(layer, path), out)
                    new.chmod(0o755)
                    new.replace(target)
                    return
    raise FileNotFoundError(f"/bin/{program} in {archive}")


def _open(tar: tarfile.TarFile, name: str):
    content = tar.extractfile(name)
    assert content is not None, name
    return content
