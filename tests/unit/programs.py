"""Checkers of the very images that will run, without an engine where the image's archive is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from rendering import ROLES, load


def cache() -> Path:
    """Where images and tools are kept, as everywhere in this project."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("VANTAGE_CACHE") or home / "vantage")


def find(role: str, program: str) -> Path | str:
    """The program of the role's image, or the reason why there is none."""
    return from_archive(role, program) or from_engine(role, program) or (
        f"there is no {program}: neither an image archive nor Docker has the image of {role}. Run `make images`."
    )  # fmt: skip


def from_archive(role: str, program: str) -> Path | None:
    """Out of the layers of the archive that images/ got, once for each image."""
    images = cache() / "images"
    try:
        index = json.loads((images / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    for entry in index.values():
        if entry["name"] == role:
            target = cache() / "tools" / f"{program}-{entry['id'].removeprefix('sha256:')[:12]}"
            return target if target.exists() or extract(images / entry["file"], program, target) else None
    return None


def extract(archive: Path, program: str, target: Path) -> bool:
    """Whether the program was found in /bin of one of the archive's layers and written to `target`."""
    with tarfile.open(archive) as image:
        member = image.extractfile("manifest.json")
        assert member is not None
        for name in json.load(member)[0]["Layers"]:
            blob = image.extractfile(name)
            assert blob is not None
            with tarfile.open(fileobj=blob) as layer:
                paths = {f"bin/{program}", f"./bin/{program}"} & set(layer.getnames())
                if paths:
                    content = layer.extractfile(paths.pop())
                    assert content is not None
                    target.parent.mkdir(parents=True, exist_ok=True)
                    new = target.with_suffix(f".{os.getpid()}")
                    with new.open("wb") as out:
                        shutil.copyfileobj(content, out)
                    new.chmod(0o755)
                    new.replace(target)
                    return True
    return False


def from_engine(role: str, program: str) -> Path | None:
    """Out of the image that Docker has."""
    image = str(load(ROLES / role / "defaults/main.yml")[f"{role}_image"])
    target = cache() / "tools" / f"{program}-{image.rsplit(':', 1)[1]}"
    if target.exists():
        return target
    try:
        made = subprocess.run(["docker", "create", "--pull=never", image], check=True, capture_output=True, text=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        container = made.stdout.strip()
        subprocess.run(["docker", "cp", f"{container}:/bin/{program}", str(target)], check=True, capture_output=True)
        subprocess.run(["docker", "rm", container], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return target
