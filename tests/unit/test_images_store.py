"""Keys, records, index.json and vars.yml: what makes a second run quiet and a changed input loud."""

from __future__ import annotations

import json
import multiprocessing
import textwrap
from pathlib import Path

import pytest
import yaml
from vantage_tools.images import cache_keys
from vantage_tools.images.manifest import Manifest, load
from vantage_tools.images.store import Record, Store, write_atomically
from vantage_tools.paths import cache_dir

IMAGES = """
    images:
      - name: loki
        pull: docker.io/grafana/loki:2.0
        make:
          {kind: go, ref: docker.io/grafana/loki:1.9, module: m, version: v1, binaries: {m/cmd: /bin/loki}, config: {}}
      - {name: app, variable: vantage_app_image, ref: docker.io/vantage/shop, make: {kind: app, base: py}}
      - name: grafana
        pull: docker.io/grafana/grafana:12
      - {name: system, local: true, make: {kind: debian, ref: docker.io/vantage/system:d, base: py, config: {}}}
    bases:
      py: {suite: trixie, packages: [python3]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tools/images" / "loki").mkdir(parents=True)
    (tmp_path / "tools/images" / "images.yml").write_text(textwrap.dedent(IMAGES))
    (tmp_path / "tools/images" / "loki" / "go.mod").write_text("module x\n")
    (tmp_path / "tools/images" / "loki" / "go.sum").write_text("m v1.9 h1:x\n")
    (tmp_path / "app" / "src" / "shop").mkdir(parents=True)
    (tmp_path / "app" / "examples" / "shop").mkdir(parents=True)
    (tmp_path / "app" / "tests").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text("FROM x\n")
    (tmp_path / "app" / "pyproject.toml").write_text('[project]\nversion = "1.0"\n')
    (tmp_path / "app" / "src" / "shop" / "a.py").write_text("A = 1\n")
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "cache")
    for folder in (made.folder, made.work):
        folder.mkdir(parents=True)
    return made


def key(root: Path, name: str, architecture: str = "amd64") -> str:
    manifest = load(root)
    return cache_keys.made_key(manifest.select([name])[0], manifest, architecture)


def add(store: Store, name: str, ref: str) -> None:
    store.archive(name).write_bytes(b"x")
    store.add(Record(name, ref, f"{name}.tar.gz", "sha256:1", "sha256:2", "made", "k"))


@pytest.mark.parametrize("changed", ["tools/images/loki/go.sum", "tools/images/loki/go.mod"])
def test_a_changed_pin_changes_the_key_of_its_engine_only(root: Path, changed: str) -> None:
    before, app = key(root, "loki"), key(root, "app")
    assert key(root, "loki") == before
    (root / changed).write_text("other\n")
    assert key(root, "loki") != before
    assert key(root, "app") == app


@pytest.mark.parametrize(
    "changed", ["src/shop/a.py", "examples/shop/pyproject.toml", "Dockerfile", "pyproject.toml", "requirements.txt"]
)
def test_changed_app_content_changes_the_key_of_the_app(root: Path, changed: str) -> None:
    before = key(root, "app")
    (root / "app" / changed).write_text('[project]\nversion = "1.1"\n')
    assert key(root, "app") != before


def test_tests_and_byte_code_do_not_change_the_key_of_the_app(root: Path) -> None:
    before = key(root, "app")
    (root / "app" / "tests" / "test_a.py").write_text("def test(): ...\n")
    (root / "app" / "src" / "shop" / "__pycache__").mkdir()
    (root / "app" / "src" / "shop" / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert key(root, "app") == before


def test_settings_and_architecture_are_part_of_the_key(root: Path) -> None:
    before = key(root, "loki")
    assert key(root, "loki", "arm64") != before
    path = root / "tools/images/images.yml"
    path.write_text(
        path.read_text().replace("config: {}}\n      - {name: app", "config: {User: x}}\n      - {name: app")
    )
    path.write_text(path.read_text().replace("/bin/loki}, config: {}", "/bin/loki}, config: {User: '1'}"))
    assert key(root, "loki") != before


def test_index_and_variables_list_what_is_there(root: Path, store: Store) -> None:
    manifest: Manifest = load(root)
    add(store, "loki", "docker.io/grafana/loki:1.9")
    add(store, "system", "docker.io/vantage/system:d")
    store.write_index(manifest)
    index = json.loads((store.folder / "index.json").read_text())
    assert index == {
        "docker.io/grafana/loki:1.9": {
            "file": "loki.tar.gz", "id": "sha256:1", "digest": "sha256:2", "origin": "made", "name": "loki",
        }
    }  # fmt: skip
    assert yaml.safe_load((store.folder / "vars.yml").read_text()) == {
        "vantage_image_source": "archive",
        "vantage_image_archive_dir": str(store.folder),
        "loki_image": "docker.io/grafana/loki:1.9",
        "grafana_enabled": False,
    }


def test_grafana_is_not_disabled_where_it_is_there(root: Path, store: Store) -> None:
    add(store, "grafana", "docker.io/grafana/grafana:12")
    store.write_index(load(root))
    values = yaml.safe_load((store.folder / "vars.yml").read_text())
    assert values["grafana_image"] == "docker.io/grafana/grafana:12"
    assert "grafana_enabled" not in values


def test_a_record_without_its_archive_counts_as_absent(store: Store) -> None:
    add(store, "loki", "docker.io/grafana/loki:1.9")
    assert store.record("loki") is not None
    store.archive("loki").unlink()
    assert store.record("loki") is None


@pytest.mark.parametrize("text", ["", '{"name": ', "{}"])
def test_a_broken_record_counts_as_absent(store: Store, text: str) -> None:
    add(store, "loki", "docker.io/grafana/loki:1.9")
    (store.folder / ".loki.json").write_text(text)
    assert store.record("loki") is None


def test_leftovers_of_a_killed_run_are_removed(store: Store) -> None:
    (store.folder / "loki.tar.gz.partial").write_bytes(b"half")
    (store.work / "programs-x.1.partial").mkdir()
    with store.lock():
        assert not list(store.folder.glob("*.partial"))
        assert not list(store.work.glob("*.partial"))


def _hold(cache: Path, started: multiprocessing.synchronize.Event, finish: multiprocessing.synchronize.Event) -> None:
    with Store(cache).lock():
        started.set()
        finish.wait(20)


def test_a_second_run_waits_for_the_first_and_says_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("fork")
    started, finish = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(store.cache, started, finish))
    process.start()
    assert started.wait(10)
    timer = context.Process(target=lambda: finish.wait(0.5) or finish.set())
    timer.start()
    with store.lock():
        assert finish.is_set()
    timer.join()
    process.join()
    assert str(store.cache / "images.lock") in capsys.readouterr().err


def test_writing_the_same_text_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomically(path, "a")
    before = path.stat().st_mtime_ns
    write_atomically(path, "a")
    assert path.stat().st_mtime_ns == before


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VANTAGE_CACHE", raising=False)
    assert cache_dir() == tmp_path / "vantage"
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
