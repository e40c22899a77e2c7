"""What has been got: one archive and one record an image, and the two files that others read."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from .manifest import Image, Manifest


def cache_root() -> Path:
    """Return the cache folder: VANTAGE_CACHE, else the user's cache folder of the XDG rules."""
    given = os.environ.get("VANTAGE_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "vantage"


@dataclass(frozen=True)
class Record:
    """One image in the store.

    `origin` is pulled, made, archive or engine; `key` is the hash of everything it came from; `id` and `digest`
    are what an engine with the classic and with the containerd image store calls it.
    """

    name: str
    ref: str
    file: str
    id: str
    digest: str
    origin: str
    key: str

    @property
    def has_index(self) -> bool:
        """Whether the archive has an OCI index, and so a name of its own in the containerd store."""
        return self.id != self.digest


def write_atomically(path: Path, text: str) -> bool:
    """Write `text` to `path` unless it is there already; return whether anything changed."""
    if path.is_file() and path.read_text() == text:
        return False
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    return True


class Store:
    """The folder `<cache>/images`."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.folder = cache / "images"
        # Finished steps of unfinished images: bases, programs.
        self.work = cache / "work"

    def prepare(self) -> None:
        """Make the folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one process; a second one waits, and says for whom."""
        self.prepare()
        with (self.cache / "images.lock").open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                print(f"another run (pid {stream.read().strip() or '?'}) is getting images: waiting for it",
                      file=sys.stderr)  # fmt: skip
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            stream.truncate()
            stream.write(str(os.getpid()))
            stream.flush()
            # Under the lock nobody else writes, so whatever is partial was left by a run that was killed.
            for folder in (self.folder, self.work):
                for left in folder.glob("*.partial"):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield

    def archive(self, name: str) -> Path:
        """Return where the archive of the image `name` belongs."""
        return self.folder / f"{name}.tar.gz"

    def _record_path(self, name: str) -> Path:
        return self.folder / f".{name}.json"

    def record(self, name: str) -> Record | None:
        """Return the record of an image that is there with its archive, else None."""
        try:
            record = Record(**json.loads(self._record_path(name).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return record if (self.folder / record.file).is_file() else None

    def add(self, record: Record) -> None:
        """Remember an image whose archive is written."""
        write_atomically(self._record_path(record.name), json.dumps(asdict(record), indent=2) + "\n")

    def drop(self, name: str) -> None:
        """Forget an image."""
        self._record_path(name).unlink(missing_ok=True)
        self.archive(name).unlink(missing_ok=True)

    def write_index(self, manifest: Manifest) -> None:
        """Write index.json and vars.yml for every image that is there and is meant for hosts."""
        index: dict[str, dict[str, str]] = {}
        found: dict[str, Record] = {}
        for image in manifest.images:
            record = self.record(image.name)
            if record is None or image.local:
                continue
            found[image.name] = record
            index[record.ref] = {
                "file": record.file, "id": record.id, "digest": record.digest,
                "origin": record.origin, "name": record.name,
            }  # fmt: skip
        write_atomically(self.folder / "index.json", json.dumps(index, indent=2, sort_keys=True) + "\n")
        write_atomically(self.folder / "vars.yml", variables(manifest.images, found, self.folder))


def variables(images: tuple[Image, ...], found: dict[str, Record], folder: Path) -> str:
    """Return Ansible's variables, as YAML, for the images `found` in `folder`."""
    values: dict[str, object] = {
        "vantage_image_source": "archive",
        "vantage_image_archive_dir": str(folder),
    }
    for image in images:
        if image.name in found and image.variable:
            values[image.variable] = found[image.name].ref
        elif image.enabled_variable:
            values[image.enabled_variable] = False
    text = yaml.safe_dump(values, sort_keys=False, explicit_start=True)
    return f"# Written by images/vantage-images; the next run overwrites it.\n{text}"
