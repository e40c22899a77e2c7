"""Get images: decide for each where it comes from, and keep the store's records right."""

from __future__ import annotations

import gzip
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import keys, registry
from .archive import Ids, damage_named, give_index, ids_in_archive, sha256_of
from .engine import Docker, get_again
from .errors import ImageError
from .gobuild import architecture
from .make import Maker
from .manifest import Image, Manifest, Reference
from .progress import Progress
from .store import Record, Store

SOURCES = ("auto", "pull", "make")


@dataclass(frozen=True)
class Missing:
    """An optional image that could not be had, and why."""

    name: str
    why: str


class Getter:
    """Gets images into `store`; `source` is auto (pull where a registry answers, else make), pull or make."""

    def __init__(
        self, manifest: Manifest, store: Store, docker: Docker, progress: Progress, source: str = "auto"
    ) -> None:
        self._manifest = manifest
        self._store = store
        self._docker = docker
        self._progress = progress
        self._source = source
        self._answers: dict[str, bool] = {}
        self._maker = Maker(manifest, store, docker, progress)

    def current(self, image: Image) -> Record | None:
        """Return the record of `image` when it is what the manifest asks for now, else None."""
        record = self._store.record(image.name)
        if record is None:
            return None
        return record if record.key in self._valid_keys(image) else None

    def done(self, image: Image) -> bool:
        """Return whether `get` would do nothing for `image`."""
        record = self.current(image)
        return record is not None and record.has_index

    def _valid_keys(self, image: Image) -> set[str]:
        """Return every key with which a record of `image` is current, given --source and the environment."""
        given = os.environ.get(image.archive_variable or "")
        if given:
            # A given archive wins over everything, and a record of another one is stale.
            return {_archive_key(Path(given))} if Path(given).is_file() else set()
        valid = set()
        if image.pull and self._source != "make":
            valid.add(keys.pulled_key(image))
        if image.make and (self._source != "pull" or not image.pull):
            valid |= {self._made_key(image), self._official_base_key(image)}
        if image.optional:
            valid.add(_engine_key(image))
            record = self._store.record(image.name)
            if record and record.origin == "archive":
                valid.add(record.key)
        return valid

    def _made_key(self, image: Image) -> str:
        return keys.made_key(image, self._manifest, architecture())

    def _official_base_key(self, image: Image) -> str:
        return keys.hash_of(["official base", self._made_key(image)])

    def get(self, image: Image) -> Record | Missing:
        """Return the record of `image`, getting it first; raises ImageError when it must be had and cannot."""
        record = self.current(image)
        if record is not None and record.has_index:
            return record
        self._progress.image(image.name)
        if record is not None:
            return self._with_index(image, record)
        given = os.environ.get(image.archive_variable or "")
        if given:
            return self._from_archive(image, Path(given))
        pulled = self._pulled(image) if image.pull else "it is in no registry"
        if isinstance(pulled, Record):
            return pulled
        if image.make and (self._source != "pull" or not image.pull):
            return self._made(image)
        if not image.optional:
            raise ImageError(f"image {image.name}", pulled, "check the network, or let it be made: --source auto")
        found = self._from_engine(image)
        if found is None:
            self._store.drop(image.name)
            return Missing(image.name, pulled)
        return found

    def _with_index(self, image: Image, record: Record) -> Record:
        """Return the record of an archive that was written before archives got an OCI index, with one."""
        self._progress.step("adding an OCI index to the archive")
        archive = self._store.archive(image.name)
        with self._progress.ticking(), damage_named(str(archive), "is not whole", get_again(archive)):
            ids = give_index(archive, record.ref, Ids(record.id, record.digest))
        return self._add(image, record.ref, ids, record.origin, record.key)

    def _made(self, image: Image) -> Record:
        ref = image.made_ref or ""
        if image.make["kind"] == "app" and self._source != "make" and self._registry_answers("docker.io"):
            try:
                ids = self._maker.build_app_on_official_base(image)
                return self._add(image, ref, ids, "made", self._official_base_key(image))
            except ImageError as error:
                if self._source == "pull":
                    raise
                self._progress.note(f"{error}\nbuilding it on a base made from Debian's packages instead")
        ids = self._maker.make(image)
        return self._add(image, ref, ids, "made", self._made_key(image))

    def _registry_answers(self, host: str) -> bool:
        if host not in self._answers:
            self._progress.step(f"asking {host}")
            self._answers[host] = registry.answers(host)
        return self._answers[host]

    def _pulled(self, image: Image) -> Record | str:
        """Return the record of a pulled image, or why it could not be pulled."""
        assert image.pull is not None
        if self._source == "make":
            return "no registry was asked (--source make)"
        host = Reference.parse(image.pull).host
        if not self._registry_answers(host):
            return f"{host} does not answer"
        self._docker.require(f"pulling {image.pull}")
        self._progress.step(f"pulling {image.pull}")
        with self._progress.ticking():
            reason = self._docker.pull(image.pull)
        if reason is not None:
            self._progress.note(f"{image.name}: could not pull {image.pull}: {reason}")
            return f"could not pull {image.pull}: {reason}"
        self._progress.step("writing the archive")
        ids = self._docker.save(image.pull, self._store.archive(image.name))
        return self._add(image, image.pull, ids, "pulled", keys.pulled_key(image))

    def _from_engine(self, image: Image) -> Record | None:
        """Return the record of an image that the local engine happens to have."""
        if not image.pull or self._docker.image_id(image.pull) is None:
            return None
        self._progress.step(f"saving {image.pull} from the local engine")
        ids = self._docker.save(image.pull, self._store.archive(image.name))
        return self._add(image, image.pull, ids, "engine", _engine_key(image))

    def _from_archive(self, image: Image, given: Path) -> Record:
        """Take the archive that a person gave; it must hold the image that the manifest names."""
        thing = f"{image.archive_variable}={given}"
        wanted = f"make it with: docker save {image.pull} | gzip > grafana.tar.gz"
        if not given.is_file():
            raise ImageError(thing, "there is no such file", wanted)
        self._progress.step(f"reading {given}")
        with damage_named(thing, "is no archive of docker save", wanted):
            tags, ids = ids_in_archive(given)
        repository = Reference.parse(image.pull or "").path
        fitting = [tag for tag in tags if tag.removeprefix("docker.io/").rpartition(":")[0] == repository]
        if not fitting:
            raise ImageError(thing, f"holds {', '.join(tags) or 'no tag'}, not {repository}", wanted)
        ref = f"docker.io/{fitting[0].removeprefix('docker.io/')}"
        if ref != image.pull:
            self._progress.note(f"{image.name}: the archive holds {ref}, not {image.pull}; using it")
        target = self._store.archive(image.name)
        partial = target.with_name(target.name + ".partial")
        with given.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        if packed:
            shutil.copyfile(given, partial)
        else:
            with given.open("rb") as source, gzip.GzipFile(partial, "wb", 1, mtime=0) as output:
                shutil.copyfileobj(source, output, 1 << 20)
        with damage_named(thing, "is not whole", wanted):
            ids = give_index(partial, ref, ids)
        partial.replace(target)
        return self._add(image, ref, ids, "archive", _archive_key(given))

    def _add(self, image: Image, ref: str, ids: Ids, origin: str, key: str) -> Record:
        archive = self._store.archive(image.name)
        record = Record(image.name, ref, archive.name, ids.id, ids.digest, origin, key)
        self._store.add(record)
        size = archive.stat().st_size / 1e6
        self._progress.done(f"{origin} {ref}, {size:.0f} MB")
        return record


def _engine_key(image: Image) -> str:
    return keys.hash_of(["engine", image.pull])


def _archive_key(path: Path) -> str:
    return keys.hash_of(["archive", sha256_of(path)])
