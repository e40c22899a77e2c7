"""Makes images: from Go modules, from Debian's packages, from app/."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vantage_tools.errors import UserError
from vantage_tools.vm import host_tools

from . import docker, registry
from .archive import Ids, new_layer, write_image
from .base import make_base, make_scratch
from .cache_keys import FORMAT, app_files, base_key, hash_of, hash_of_files, program_key
from .gobuild import GoBuild, architecture, require_space
from .manifest import Image, Manifest
from .progress import Progress
from .store import Store
from .wheels import download, serve

# Of the app's image where no registry answers.
PYTHON_VERSION = "3.13"
# A static program's certificates and time zones come from this one.
_CERTIFICATE_BASE = "promtail-base"


@dataclass
class Maker:
    """Makes the images of `manifest` and keeps finished steps in the store's work folder."""

    manifest: Manifest
    store: Store
    progress: Progress

    def make(self, image: Image) -> Ids:
        """Write the archive of `image` and return its ids; raises UserError."""
        makers = {"go": self._go, "debian": self._debian, "app": self._app}
        return makers[image.make["kind"]](image)

    def _cached(self, prefix: str, key: str) -> Path:
        """Return where the result of a step is kept; results with another key are removed."""
        target = self.store.work / (prefix + key)
        if not target.exists():
            if host_tools.missing_packages("images"):
                with self.progress.step("installing the tools that images are made with"):
                    host_tools.install("images")
            for old in self.store.work.glob(f"{prefix}*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        return target

    def _base(self, name: str) -> Path:
        base = self.manifest.bases[name]
        target = self._cached(f"base-{name}-", f"{base_key(base)}.tar")
        if not target.is_file():
            partial = target.with_name(target.name + ".partial")
            with self.progress.step(f"{base.suite} packages for {name}"):
                make_base(base, partial)
            partial.replace(target)
        return target

    def _write(self, image: Image, *layers: Path) -> Ids:
        with self.progress.step("writing the archive"):
            archive = self.store.archive(image.name)
            return write_image(archive, image.made_ref, layers, image.make["config"], architecture())

    def _debian(self, image: Image) -> Ids:
        return self._write(image, self._base(image.make["base"]))

    def _go(self, image: Image) -> Ids:
        make = image.make
        build = GoBuild(image.name, make, self.manifest.folder, self.store.cache, self.progress)
        programs = self._cached(f"programs-{image.name}-", program_key(make, build.folder, architecture()))
        if not programs.is_dir():
            require_space(self.store.cache)
            build.run(programs)
        with tempfile.TemporaryDirectory(dir=self.store.work, suffix=".partial") as temporary:
            top = Path(temporary, "programs.tar")
            with new_layer(top) as layer:
                for path, settings in make.get("directories", {}).items():
                    uid, gid = settings["owner"].split(":")
                    layer.directory(path, int(settings["mode"], 8), int(uid), int(gid))
                for path in make["binaries"].values():
                    layer.file(path, programs / Path(path).name, 0o755)
                if files := make.get("module_files"):
                    folder = build.module_folder()
                    for name, path in files.items():
                        layer.file(path, folder / name)
            bottom = self._base(make["base"]) if "base" in make else self._scratch(make.get("users", {}))
            return self._write(image, bottom, top)

    def _scratch(self, users: dict[str, int]) -> Path:
        certificates = self._base(_CERTIFICATE_BASE)
        target = self.store.work / f"scratch-{hash_of([FORMAT, certificates.name, users])}.tar"
        if not target.is_file():
            partial = target.with_name(target.name + ".partial")
            make_scratch(partial, certificates, users)
            partial.replace(target)
        return target

    def _app(self, image: Image) -> Ids:
        """Build app/Dockerfile, on its own base where a registry answers, else on one of Debian's packages."""
        docker.require("building app/Dockerfile")
        if registry.is_reachable("docker.io"):
            try:
                return self._build_app(image, {})
            except UserError as error:
                self.progress.note(f"{error}\nUsing a base made of Debian's packages.")
        base = self._load_python_base(image.make["base"])
        context = self.manifest.root / "app"
        requirements = sorted(context.glob("requirements*.txt"))
        key = hash_of([PYTHON_VERSION, architecture(), hash_of_files(requirements, context)])
        wheels = self._cached("wheels-", key)
        with self.progress.step("fetching Python packages"):
            download(requirements, wheels, PYTHON_VERSION)
        with serve(wheels) as url:
            arguments = {"BASE_IMAGE": base, "PIP_INDEX_URL": url, "PIP_TRUSTED_HOST": "127.0.0.1"}
            # The host's network, because the index listens on 127.0.0.1 only.
            return self._build_app(image, arguments, "--network=host")

    def _build_app(self, image: Image, arguments: dict[str, str], *options: str) -> Ids:
        root, ref = self.manifest.root, image.made_ref
        # The content's hash, not a commit's: the same files are the same image, committed or not.
        revision = hash_of(hash_of_files(app_files(root), root))
        arguments = {**arguments, "VERSION": ref.rpartition(":")[2], "REVISION": revision}
        with self.progress.step("building app/Dockerfile"):
            docker.build(root / "app", ref, arguments, *options)
        with self.progress.step("writing the archive"):
            return docker.save(ref, self.store.archive(image.name))

    def _load_python_base(self, name: str) -> str:
        """Load what stands in for python:3.13-slim into the engine and return its reference."""
        rootfs = self._base(name)
        ref = f"docker.io/vantage/python:{rootfs.stem}"
        if not docker.image_id(ref):
            with (
                self.progress.step("loading the Python base"),
                tempfile.TemporaryDirectory(dir=self.store.work, suffix=".partial") as temporary,
            ):
                top, archive = Path(temporary, "python.tar"), Path(temporary, "image.tar.gz")
                with new_layer(top) as layer:
                    # As in the official image; and pip may install, because this is a container.
                    for program, target in (("python", "python3"), ("python3", "python3"), ("pip", "pip3")):
                        layer.symlink(f"/usr/local/bin/{program}", f"/usr/bin/{target}")
                    layer.data(f"/usr/lib/python{PYTHON_VERSION}/.wh.EXTERNALLY-MANAGED", b"")
                settings = {"Cmd": ["python3"], "Env": ["LANG=C.UTF-8"]}
                write_image(archive, ref, [rootfs, top], settings, architecture())
                docker.load(archive, "Run: vantage images clean")
        return ref
