"""The images that are there: an archive and a record each, and the two files that others read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from vantage_tools import process
from vantage_tools.errors import UserError

from .manifest import Manifest


@dataclass(frozen=True)
class Record:
    """One image in the store.

    `origin` is pulled, made, archive or engine; `key` is the hash of everything it came from; `id` and `digest` are
    what an engine with the classic and with the containerd image store calls it.
    """

    name: str
    ref: str
    file: str
    id: str
    digest: str
    origin: str
    key: str


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path`, unless it is there already."""
    if path.is_file() and path.read_text() == text:
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


class Store:
    """The folder `<cache>/images`."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.folder = cache / "images"
        # Finished steps of unfinished images: bases, programs.
        self.work = cache / "work"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one process; a second one waits. Raises UserError for a full or unwritable disk."""
        try:
            with process.lock(self.cache / "images.lock"):
                for folder in (self.folder, self.work):
                    folder.mkdir(exist_ok=True)
                    # Only the holder of the lock writes, so what is partial was left by a process that was killed.
                    for left in folder.glob("*.partial"):
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
                yield
        except OSError as error:
            fix = "Check free space and permissions there, then retry: finished steps are kept."
            raise UserError(f"{error.filename or self.cache}: {error.strerror or error}", fix) from error

    def archive(self, name: str) -> Path:
        return self.folder / f"{name}.tar.gz"

    def _record_path(self, name: str) -> Path:
        return self.folder / f".{name}.json"

    def record(self, name: str) -> Record | None:
        try:
            record = Record(**json.loads(self._record_path(name).read_text()))
        except (OSError, ValueError, TypeError):
            # Absent, cut off by a power failure, or of another release.
            return None
        return record if self.archive(name).is_file() else None

    def add(self, record: Record) -> None:
        write_atomically(self._record_path(record.name), json.dumps(asdict(record), indent=2) + "\n")

    def drop(self, name: str) -> None:
        self._record_path(name).unlink(missing_ok=True)
        self.archive(name).unlink(missing_ok=True)

    def write_index(self, manifest: Manifest) -> None:
        """Write index.json and vars.yml for every image that is there and is sent to hosts."""
        index: dict[str, dict[str, str]] = {}
        values: dict[str, object] = {"vantage_image_source": "archive", "vantage_image_archive_dir": str(self.folder)}
        for image in manifest.select([]):
            if record := self.record(image.name):
                index[record.ref] = {k: v for k, v in asdict(record).items() if k not in ("ref", "key")}
                values[image.variable] = record.ref
            elif not image.make:
                values[f"{image.name}_enabled"] = False
        write_atomically(self.folder / "index.json", json.dumps(index, indent=2, sort_keys=True) + "\n")
        text = yaml.safe_dump(values, sort_keys=False, explicit_start=True)
        write_atomically(self.folder / "vars.yml", f"# Written by `vantage images get`, which overwrites it.\n{text}")
