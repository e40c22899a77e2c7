"""What of an app's folder reaches the builder."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from ansible.template import trust_as_template
from rendering import ROLES, Host
from test_own_app import load_module

source = load_module(ROLES / "flask_app/filter_plugins/source.py")
copy_source = load_module(ROLES / "flask_app/action_plugins/copy_source.py")
checks = load_module(ROLES / "flask_app/files/check_packages.py")
errors = load_module(ROLES / "flask_app/filter_plugins/build_errors.py")


def call(name: str, folder: Path) -> object:
    return Host("flask_app", folder=str(folder)).value(trust_as_template("{{ folder | " + name + " }}"))


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_git_history_venv_and_env_files_are_not_packed(tmp_path: Path) -> None:
    write(tmp_path, "Dockerfile", "src/app.py", "dist/page.js", ".dockerignore")
    before = call("source_digest", tmp_path)
    write(tmp_path, "env/pyvenv.cfg", "env/lib/x.py", "src/node_modules/x.js", ".env.local")
    write(tmp_path, ".git/config", ".venv/bin/python", ".env", "src/.env", "src/__pycache__/app.pyc", "x.egg-info/PKG")
    assert call("source_files", tmp_path) == [".dockerignore", "Dockerfile", "dist/page.js", "src/app.py"]
    assert call("source_digest", tmp_path) == before


def test_every_file_that_reaches_the_builder_changes_the_digest(tmp_path: Path) -> None:
    write(tmp_path, "Dockerfile", "dist/page.js")
    before = call("source_digest", tmp_path)
    (tmp_path / "dist/page.js").write_text("new")
    after = call("source_digest", tmp_path)
    assert after != before
    (tmp_path / "dist/page.js").chmod(0o755)
    assert call("source_digest", tmp_path) != after, "a script that may run now is another source"


def test_source_that_is_no_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"missing is not a directory"):
        call("source_digest", tmp_path / "missing")


# The folder as people have it ------------------------------------------------------------------------------------------


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path, "app/app.py", "web/static/a.css")
    (tmp_path / "app/static").symlink_to("../web/static")
    (tmp_path / "app/again").symlink_to("../app")
    (tmp_path / "app/itself").symlink_to("itself")
    (tmp_path / "app/nothing").symlink_to("missing")
    os.mkfifo(tmp_path / "app/pipe")
    assert source.source_files(str(tmp_path / "app")) == ["app.py", "static/a.css"]


def test_unreadable_files_are_named_with_the_file_that_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "app.py", "pgdata/PG_VERSION", "dump.sql", ".gitignore")
    (tmp_path / ".gitignore").write_text("")
    real_access, real_scandir = os.access, os.scandir

    def scandir(path: Path) -> Any:
        if path.name == "pgdata":
            raise PermissionError(str(path))
        return real_scandir(path)

    # Root may read everything.
    monkeypatch.setattr(source.os, "access", lambda path, mode: "dump" not in path and real_access(path, mode))
    monkeypatch.setattr(source.os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"dump\.sql, pgdata/.*\.gitignore"):
        source.source_files(str(tmp_path))
    (tmp_path / ".gitignore").write_text("pgdata/\n*.sql\n")
    assert source.source_files(str(tmp_path)) == [".gitignore", "app.py"]


def test_file_name_that_is_not_utf8_reaches_the_host(tmp_path: Path) -> None:
    write(tmp_path, "with space.txt", "line\nbreak.txt")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    names = source.source_files(str(tmp_path))
    assert b"caf\xe9.txt" in [os.fsencode(name) for name in names]
    assert len(source.source_digest(str(tmp_path))) == 64
    archive = tmp_path.parent / f"{tmp_path.name}.tar.gz"
    with archive.open("wb") as file:
        copy_source.pack(str(tmp_path), names, file)
    (tmp_path.parent / "out").mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(tmp_path.parent / "out")], check=True)
    assert sorted(os.fsencode(path.name) for path in (tmp_path.parent / "out").iterdir()) == [
        b"caf\xe9.txt",
        b"line\nbreak.txt",
        b"with space.txt",
    ]


def test_umask_of_the_checkout_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "run.sh")
    (tmp_path / "app.py").chmod(0o600)
    (tmp_path / "run.sh").chmod(0o700)
    archive = tmp_path.parent / f"{tmp_path.name}.tar.gz"
    with archive.open("wb") as file:
        copy_source.pack(str(tmp_path), ["app.py", "run.sh"], file)
    with tarfile.open(archive) as packed:
        assert {one.name: one.mode for one in packed} == {"app.py": 0o644, "run.sh": 0o755}
        assert {(one.uid, one.gid) for one in packed} == {(0, 0)}


def test_large_file_is_read_in_pieces_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(source.Display, "warning", lambda self, text: warnings.append(text))
    write(tmp_path, "app.py", ".dockerignore")
    os.truncate(tmp_path / "app.py", 100)
    (tmp_path / "model.bin").touch()
    os.truncate(tmp_path / "model.bin", 300 * 2**20)
    tracemalloc.start()
    source.source_digest(str(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * 2**20
    (warning,) = warnings
    assert all(word in warning for word in ("model.bin", "315 MB", ".dockerignore"))
    (tmp_path / ".dockerignore").write_text("*.bin\n")
    source.source_digest(str(tmp_path))
    assert len(warnings) == 1


def test_each_source_is_read_once_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path, "app.py")
    assert set(source.source_digests([str(tmp_path), str(tmp_path)])) == {str(tmp_path)}
    app = {"name": "blog", "source": str(tmp_path), "port": 1}
    host = Host("flask_app", __flask_app=app, __flask_app_contents={str(tmp_path): "known"})
    assert host.value(host.variables["__flask_app_content"]) == "known"


IGNORE_FILES = (
    """
# a comment
*.log
!keep.log
/top.txt
build/
data/**/cache
notes/*
!notes/read.me
**/deep.txt
inner/**
name[0-9].py
file\\#1
trailing.txt"""
    + "   \n"
)
PATHS = (
    "app.py", "a.log", "x/keep.log", "x/a.log", "top.txt", "x/top.txt", "build/a", "x/build/a", "buildx/a", "data/cache/a",
    "data/x/y/cache/a", "notes/a.md", "notes/read.me", "x/deep.txt", "deep.txt", "inner/a/b", "x/inner/a", "name1.py",
    "names.py", "trailing.txt", "sub/own.txt", "sub/x/own.txt", "own.txt", "sub/a.log", "sub/again.log", "requirements.txt",
)  # fmt: skip


def test_gitignore_is_read_as_git_reads_it(tmp_path: Path) -> None:
    write(tmp_path, *PATHS)
    (tmp_path / ".gitignore").write_text(IGNORE_FILES)
    (tmp_path / "sub/.gitignore").write_text("own.txt\n!again.log\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    command = ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert source.source_files(str(tmp_path)) == sorted(listed.rstrip("\0").split("\0"))
    assert "sub/again.log" in listed


def test_dockerignore_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "Dockerfile",
        "app.py",
        "src/a.py",
        "src/a.log",
        "x/src/b.py",
        "docs/a",
        "docs/keep/b",
        "x/c.tmp",
        ".gitignore",
    )
    (tmp_path / ".gitignore").write_text("app.py\n")
    (tmp_path / ".dockerignore").write_text(
        "/src/*.log\ndocs\n!docs/keep\n**/*.tmp\nDockerfile\nx/src/\n./.gitignore\n"
    )
    expected = [".dockerignore", "Dockerfile", "app.py", "docs/keep/b", "src/a.py"]
    assert source.source_files(str(tmp_path)) == expected
    (tmp_path / ".dockerignore").write_text("*\n!src\n**/a.log\n")
    assert source.source_files(str(tmp_path)) == [".dockerignore", "Dockerfile", "src/a.py"]


def test_gitignore_does_not_count_where_docker_reads_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "dist/page.js", ".gitignore")
    (tmp_path / ".gitignore").write_text("dist/\n")
    assert source.source_files(str(tmp_path)) == [".gitignore", "app.py"]
    write(tmp_path, "Dockerfile")
    assert "dist/page.js" in source.source_files(str(tmp_path))


def test_files_that_the_build_reads_are_never_ignored(tmp_path: Path) -> None:
    write(tmp_path, "requirements.txt", "x/requirements.txt", ".gitignore", ".env.example", ".env", "instance/x")
    (tmp_path / ".gitignore").write_text("*.txt\n")
    assert source.source_files(str(tmp_path)) == [".env.example", ".gitignore", "requirements.txt"]


# Packages --------------------------------------------------------------------------------------------------------------


def packages(folder: Path, content: str = "content", **changes: Any) -> str:
    recipe = {"dependencies": "requirements.txt", "packages": [], "traced": False} | changes
    return str(source.packages_digest(str(folder), recipe, content, "base"))


def test_packages_are_installed_again_only_if_their_list_changed(tmp_path: Path) -> None:
    write(tmp_path, "app.py")
    (tmp_path / "requirements.txt").write_text("flask\n-r more/dev.txt\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/dev.txt").write_text("-c pins.txt\n")
    (tmp_path / "more/pins.txt").write_text("flask==3\n")
    before = packages(tmp_path)
    assert packages(tmp_path, content="other code") == before
    assert packages(tmp_path, traced=True) != before
    (tmp_path / "more/pins.txt").write_text("flask==3.1\n")
    assert packages(tmp_path) != before


@pytest.mark.parametrize(
    "line", ["-e .", "./vendor/x.whl", "x @ file:///srv/app/x", "vendor/x-1.whl", "--find-links wheels"]
)
def test_package_of_the_source_itself_is_installed_with_each_version_of_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"flask\n{line}\n")
    assert packages(tmp_path, content="one") != packages(tmp_path, content="two")


def test_conflict_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# pins\nflask\nOpenTelemetry_api==1.27.0\n")
    checked = (
        "opentelemetry-sdk 1.45.1 has requirement opentelemetry-api==1.45.1, but you have opentelemetry-api 1.27.0.\n"
        "flask-vantage 0.1.0 has requirement flask<4,>=3.1, but you have flask 2.3.3.\n"
        "x 1 requires y, which is not installed.\n"
    )
    first, second = checks.conflicts(checked, tmp_path / "requirements.txt")
    assert first.startswith("requirements.txt:3: opentelemetry-api 1.27.0")
    assert "opentelemetry-sdk" in first
    assert second.startswith("requirements.txt:2: flask 2.3.3")


# Builds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "buildkit"),
    [("builder=buildx", True), ("builder=20.10.24+dfsg1\r\n", True), ("builder=28.2.2", False), ("", False)],
)
def test_buildkit_is_used_where_the_host_has_it(answer: str, buildkit: bool) -> None:
    host = Host("flask_app", __flask_app_builder={"stdout": answer})
    assert host.value(host.variables["__flask_app_buildkit"]) is buildkit
    assert host.value(host.variables["__flask_app_builder_settings"])["DOCKER_BUILDKIT"] == ("1" if buildkit else "0")


@pytest.mark.parametrize(
    ("output", "buildkit", "word"),
    [
        ("dockerfile parse error line 18: unknown instruction: APK", False, "docker-buildx"),
        ("the --mount option requires BuildKit", False, "docker-buildx"),
        # As Docker 20.10 prints them.
        ("dockerfile parse error line 3: unknown instruction: APK", True, "# syntax=docker/dockerfile:1"),
        ("------\n > resolve image config for docker.io/docker/dockerfile:1:\n------\nfailed", True, "Remove the line"),
        ("#3 resolve image config for docker.io/docker/dockerfile:1\n#3 DONE\nexit code: 1", True, "docker build /src"),
    ],
)
def test_advice_for_a_dockerfile_names_what_is_missing(output: str, buildkit: bool, word: str) -> None:
    assert word in errors.build_advice(output, "/src", {"dockerfile": True}, buildkit)


def test_package_that_must_be_compiled_is_explained() -> None:
    recipe = {"dockerfile": False, "dependencies": "Pipfile"}
    assert "compiler" in errors.build_advice("Error: pg_config executable not found.", "/src", recipe, True)
    assert "Pipfile" in errors.build_advice("No matching distribution found", "/src", recipe, True)
    assert errors.build_error("\n".join(map(str, range(100)))).splitlines()[0] == "80"


# Lines of `docker build --progress=plain` of Docker 20.10.
BUILDKIT_OUTPUT = """\
#1 [internal] load build definition from Dockerfile
#1 sha256:dc16ed3860adb9563ab5aa06bca56ab8ac3857bd1fa708bff2a23b8500b79b1b
#1 DONE 0.0s

#6 [2/9] COPY requirements.txt requirements.txt
#6 DONE 0.1s

#7 [3/9] RUN pip install     -r requirements.txt
#7 sha256:5fb6ac13be42206a587a36d3169ef1f7069cc80e3bba54591ad3670ba8c5a780
#7 42.61 Collecting psycopg2-binary==2.9.9 (from -r requirements.txt (line 2))
#7 48.07   error: subprocess-exited-with-error
#7 48.07
#7 48.07       Error: pg_config executable not found.
#7 ERROR: executor failed running [/bin/sh -c pip install -r requirements.txt]: exit code: 1
------
 > [3/9] RUN pip install -r requirements.txt:
------
executor failed running [/bin/sh -c pip install -r requirements.txt]: exit code: 1"""


@pytest.mark.parametrize(
    ("output", "line", "word"),
    [
        (BUILDKIT_OUTPUT, "Dockerfile:3: RUN pip install -r requirements.txt, requirements.txt:2: ", "compiler"),
        (
            # The builder before BuildKit, with --quiet.
            "ERROR: No matching distribution found for flask==99\n"
            "The command '/bin/sh -c pip install -r requirements.txt' returned a non-zero code: 1",
            "Dockerfile:3: RUN pip install -r requirements.txt, requirements.txt:1: Flask==99",
            "FROM",
        ),
        (
            "#9 [3/9] RUN pip install -r requirements.txt\n"
            "#9 0.8 WARNING: Retrying after connection broken by 'SSLError(CERTIFICATE_VERIFY_FAILED)': /simple/flask/\n"
            "#9 8.4 ERROR: No matching distribution found for flask==99\n#9 ERROR: exit code: 1",
            "requirements.txt:1: Flask==99",
            "PIP_INDEX_URL",
        ),
        (
            "#3 [internal] load metadata for docker.io/library/python:3.8-slim\n#3 ERROR: no such host\n------",
            "Dockerfile:1: FROM python:3.8-slim",
            "docker build",
        ),
        (
            "ERROR: Failed building wheel for psycopg2_binary\nERROR: Failed to build installable wheels for some "
            "pyproject.toml based projects (psycopg2_binary)\nThe command '/bin/sh -c x' returned a non-zero code: 1",
            "Failed at requirements.txt:2: psycopg2_binary==2.9.9.",
            "wheel",
        ),
        ("#9 [5/5] RUN make\n#9 1.0 Failed to build 'misaka'\n#9 ERROR: exit code: 1", "misaka", "FROM"),
    ],
)
def test_failed_build_names_file_and_line(tmp_path: Path, output: str, line: str, word: str) -> None:
    (tmp_path / "requirements.txt").write_text("Flask==99\npsycopg2_binary==2.9.9 ; python_version > '3'\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.8-slim\nCOPY . .\nRUN pip install \\\n    -r requirements.txt\n"
    )
    advice = errors.build_advice(output, str(tmp_path), {"dockerfile": True}, True)
    assert line in advice.splitlines()[0]
    assert word in advice.splitlines()[1]


def test_only_the_step_that_failed_is_shown() -> None:
    shown = errors.build_error(BUILDKIT_OUTPUT).splitlines()
    assert shown[0].startswith("[3/9] RUN pip install")
    assert "      Error: pg_config executable not found." in shown
    assert not any(line.startswith(("#", "sha256:")) or "COPY" in line for line in shown)


@pytest.mark.parametrize(("instrument", "module"), [("none", "flask_vantage.serve"), ("auto", "flask_vantage.auto")])
def test_auto_starts_the_app_by_another_module_of_the_base_image(instrument: str, module: str) -> None:
    recipe = {"python_path": ["/srv/app"], "instrument": instrument, "object": "app:app"}
    text = Host("flask_app").render(
        ROLES / "flask_app/templates/Dockerfile.j2",
        __flask_app_recipe=recipe,
        __flask_app_packages_image="vantage/x:packages-0",
    )
    assert f'ENTRYPOINT ["/opt/app/bin/python3", "-m", "{module}"]' in text
