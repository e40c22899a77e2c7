"""Make images: from Go modules, from Debian's packages, from app/."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from .archive import Ids, new_layer, write_image
from .base import make_base, make_scratch
from .engine import Docker
from .errors import ImageError
from .gobuild import GoBuild, architecture, require_room
from .keys import FORMAT, app_files, base_key, hash_of, hash_of_files, program_key
from .manifest import Base, Image, Manifest
from .progress import Progress
from .store import Store
from .wheels import download, serve

# What the app image's base stands in for, and which Python is in it.
PYTHON_VERSION = "3.13"
PYTHON_BASE_REF = "docker.io/vantage/python:3.13-debian13"
# A static program's certificates and time zones come from this one.
_CERTIFICATE_BASE = "promtail-base"


class Maker:
    """Makes the images of `manifest`, keeping finished steps in the store's work folder."""

    def __init__(self, manifest: Manifest, store: Store, docker: Docker, progress: Progress) -> None:
        self._root = manifest.root
        self._manifest = manifest
        self._store = store
        self._docker = docker
        self._progress = progress

    def make(self, image: Image) -> Ids:
        """Write the archive of `image` and return its ids; raises ImageError."""
        self._require_tools()
        makers = {"go": self._go, "debian": self._debian, "app": self._app}
        return makers[image.make["kind"]](image)

    def _require_tools(self) -> None:
        """Install what images are made with where it is missing; raises ImageError where that is not possible."""
        program = str(self._root / "scripts/host-tools")
        if subprocess.run([program, "--check", "images"], capture_output=True, check=False).returncode == 0:
            return
        self._progress.step("installing the tools that images are made with")
        with self._progress.ticking():
            done = subprocess.run([program, "images"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ImageError("tools that images are made with", done.stderr.strip()[-800:], "see the lines above")

    def _step(self, prefix: str, key: str) -> Path:
        """Return where the result of a step is kept; results with another key are of no more use and go."""
        target = self._store.work / (prefix + key)
        if not target.exists():
            for old in self._store.work.glob(f"{prefix}*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        return target

    def _base(self, name: str) -> Path:
        base: Base = self._manifest.bases[name]
        target = self._step(f"base-{name}-", f"{base_key(base)}.tar")
        make_base(base, target, self._progress)
        return target

    def _debian(self, image: Image) -> Ids:
        layer = self._base(image.make["base"])
        self._progress.step("writing the archive")
        return write_image(self._store.archive(image.name), image.make["ref"], [layer],
                           image.make["config"], architecture())  # fmt: skip

    def _go(self, image: Image) -> Ids:
        make = image.make
        source = self._root / "images" / image.name
        programs = self._step(f"programs-{image.name}-", program_key(image.make, source, architecture()))
        build = None
        if not programs.is_dir():
            require_room(self._store.cache)
            build = GoBuild(image.name, make, source, self._store.cache, self._progress)
            build.run(programs)
        extras = self._module_files(image, source, build)
        with tempfile.TemporaryDirectory(dir=self._store.work, suffix=".partial") as temporary:
            top = Path(temporary, "programs.tar")
            with new_layer(top) as layer:
                for path, settings in make.get("directories", {}).items():
                    uid, gid = (int(number) for number in settings["owner"].split(":"))
                    layer.directory(path, int(settings["mode"], 8), uid, gid)
                for path in make["binaries"].values():
                    layer.file(path, programs / Path(path).name, 0o755)
                for path, content in extras.items():
                    layer.data(path, content)
            if make.get("base"):
                bottom = self._base(make["base"])
            else:
                users = make.get("users", {})
                certificates = self._base(_CERTIFICATE_BASE)
                bottom = self._store.work / f"scratch-{hash_of([FORMAT, certificates.name, users])}.tar"
                if not bottom.is_file():
                    partial = bottom.with_name(bottom.name + ".partial")
                    make_scratch(partial, certificates, users)
                    partial.replace(bottom)
            self._progress.step("writing the archive")
            return write_image(self._store.archive(image.name), make["ref"], [bottom, top],
                               make["config"], architecture())  # fmt: skip

    def _module_files(self, image: Image, source: Path, build: GoBuild | None) -> dict[str, bytes]:
        """Return {path in the image: content} of the default config and licences in the engine's own module."""
        wanted: dict[str, str] = image.make.get("module_files", {})
        if not wanted:
            return {}
        build = build or GoBuild(image.name, image.make, source, self._store.cache, self._progress)
        folder = build.module_folder()
        return {target: (folder / name).read_bytes() for name, target in wanted.items()}

    def _app(self, image: Image) -> Ids:
        context = self._root / "app"
        if not (context / "Dockerfile").is_file():
            raise ImageError("image app", "app/Dockerfile is not there", "use a complete checkout")
        self._docker.require("building app/Dockerfile")
        ref = image.made_ref
        assert ref is not None
        self._load_python_base(image.make["base"])
        requirements = sorted(context.glob("requirements*.txt"))
        key = hash_of([PYTHON_VERSION, architecture(), hash_of_files(requirements, context)])
        wheels = self._step("wheels-", key)
        self._progress.step("fetching Python packages")
        with self._progress.ticking():
            download(requirements, wheels, PYTHON_VERSION, self._store.cache)
        self._progress.step("building app/Dockerfile")
        log = self._store.work / "app.log"
        with serve(wheels, self._store.work / "index.partial") as url, self._progress.ticking():
            arguments = {"BASE_IMAGE": PYTHON_BASE_REF, "PIP_INDEX_URL": url, "PIP_TRUSTED_HOST": "127.0.0.1",
                         **self._labels(ref)}  # fmt: skip
            # The host's network, because the index above listens on 127.0.0.1 only.
            self._docker.build(context, ref, arguments, log, host_network=True)
        self._progress.step("writing the archive")
        return self._docker.save(ref, self._store.archive(image.name))

    def build_app_on_official_base(self, image: Image) -> Ids:
        """Build app/Dockerfile as it stands, on its own base from a registry."""
        ref = image.made_ref
        assert ref is not None
        self._docker.require("building app/Dockerfile")
        self._progress.step("building app/Dockerfile on its official base")
        with self._progress.ticking():
            self._docker.build(self._root / "app", ref, self._labels(ref), self._store.work / "app.log",
                               host_network=False)  # fmt: skip
        self._progress.step("writing the archive")
        return self._docker.save(ref, self._store.archive(image.name))

    def _labels(self, ref: str) -> dict[str, str]:
        # The content's own hash, not a commit's: the same files are the same image, committed or not.
        content = hash_of(hash_of_files(app_files(self._root), self._root))
        return {"VERSION": ref.rpartition(":")[2], "REVISION": content}

    def _load_python_base(self, name: str) -> None:
        target = self._store.work / f"image-{name}-{base_key(self._manifest.bases[name])}.tar.gz"
        known = target.with_suffix(".json")
        if target.is_file() and known.is_file():
            image_id = json.loads(known.read_text())["id"]
        else:
            rootfs = self._base(name)
            self._progress.step("writing the Python base")
            with tempfile.TemporaryDirectory(dir=self._store.work, suffix=".partial") as temporary:
                top = Path(temporary, "python.tar")
                with new_layer(top) as layer:
                    # Where the official image has them; and no refusal of pip, this being a container.
                    layer.symlink("/usr/local/bin/python", "/usr/bin/python3")
                    layer.symlink("/usr/local/bin/python3", "/usr/bin/python3")
                    layer.symlink("/usr/local/bin/pip", "/usr/bin/pip3")
                    layer.data(f"/usr/lib/python{PYTHON_VERSION}/.wh.EXTERNALLY-MANAGED", b"")
                image_id = write_image(target, PYTHON_BASE_REF, [rootfs, top],
                                       {"Cmd": ["python3"], "Env": ["LANG=C.UTF-8"]}, architecture()).id  # fmt: skip
            known.write_text(json.dumps({"id": image_id}))
        if self._docker.image_id(PYTHON_BASE_REF) != image_id:
            self._docker.load(target)
