"""The module that puts a service's files in place, run by Ansible on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rendering import ROLES, ROOT


class Runner:
    """Runs the module in a folder; the files belong to the user that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.etc.mkdir()

    def file(self, name: str, content: str | None, **more: Any) -> dict[str, Any]:
        return {"path": f"{self.etc}/{name}", "content": content, "owner": os.getuid(), "group": os.getgid()} | more

    def directory(self, name: str, **more: Any) -> dict[str, Any]:
        return {"path": f"{self.etc}/{name}/".replace("//", "/"), "owner": os.getuid(), "group": os.getgid()} | more

    def __call__(self, *options: str, **arguments: Any) -> dict[str, Any]:
        return self.each(arguments, options=options)[0]

    def each(self, *tasks: dict[str, Any], options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Return the result of each task, one after the other in one run: its start takes as long as three tasks."""
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "ignore_errors": True,
            "tasks": [{"vantage_files": arguments} for arguments in tasks],
        }
        path = self.folder / "play.json"
        path.write_text(json.dumps([play]))
        environment = os.environ | {
            "ANSIBLE_CONFIG": "",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LIBRARY": str(ROLES / "vantage/library"),
            "ANSIBLE_ACTION_PLUGINS": str(ROLES / "vantage/action_plugins"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
        }
        result = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(path), *options],
            check=False, capture_output=True, text=True, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        shown = json.loads(result.stdout[result.stdout.index("{") :])
        return [task["hosts"]["localhost"] for task in shown["plays"][0]["tasks"]]


@pytest.fixture
def place(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_files_are_written_with_their_rights_and_a_second_run_changes_nothing(place: Runner) -> None:
    file = place.file("app.yml", "one: 1\n", mode="0640")
    first, second = place.each({"files": [file]}, {"files": [file]})
    assert first["changed"]
    assert not second["changed"]
    assert (place.etc / "app.yml").read_text() == "one: 1\n"
    assert (place.etc / "app.yml").stat().st_mode & 0o777 == 0o640


def test_check_mode_shows_the_difference_and_writes_nothing(place: Runner) -> None:
    (place.etc / "app.yml").write_text("old\n")
    result = place("--check", "--diff", files=[place.file("app.yml", "new\n")])
    assert result["changed"]
    assert [(d["before"], d["after"]) for d in result["diff"]] == [("old\n", "new\n")]
    assert (place.etc / "app.yml").read_text() == "old\n"


def test_a_refused_file_leaves_all_files_as_they_were(place: Runner) -> None:
    for name in ("rules.yml", "config.yml"):
        (place.etc / name).write_text("old\n")
    result = place(
        files=[
            place.file("rules.yml", "new\n"),
            place.file("config.yml", "nonsense\n", validate="grep -q sense-made %s"),
        ]
    )
    assert result["failed"]
    assert "config.yml was not changed" in result["msg"]
    assert (place.etc / "rules.yml").read_text() == "old\n"
    assert (place.etc / "config.yml").read_text() == "old\n"


def test_an_accepted_file_is_written(place: Runner) -> None:
    assert not place(files=[place.file("config.yml", "sense-made\n", validate="grep -q sense-made %s")]).get("failed")
    assert (place.etc / "config.yml").read_text() == "sense-made\n"


def test_message_contains_the_output_of_the_checker(place: Runner) -> None:
    result = place(files=[place.file("config.yml", "x", validate="ls /no-such-place/%s")])
    assert "no-such-place" in result["msg"]


def test_a_checker_that_explains_itself_is_quoted_alone(place: Runner) -> None:
    check = "sh -c 'echo the canary failed >&2; test -s /no-such-place && test -s %s'"
    result = place(files=[place.file("unit", "x", validate=check, explained=True)])
    assert result["msg"] == "the canary failed"
    assert not (place.etc / "unit").exists()


def test_what_apply_says_to_stderr_is_a_warning(place: Runner) -> None:
    result = place(files=[], apply=["sh", "-c", "echo hello restart; echo it was rolled back >&2"])
    assert result.get("applied") == "hello restart\n", result
    assert result["warnings"] == ["it was rolled back"]


def test_prune_removes_files_of_earlier_versions(place: Runner) -> None:
    (place.etc / "old.json").write_text("{}")
    (place.etc / "folder").mkdir()
    (place.etc / "folder/old.json").write_text("{}")
    result = place(files=[place.file("new.json", "{}"), place.directory("", prune=True)])
    assert {f"{place.etc}/old.json", f"{place.etc}/folder/old.json"} <= set(result["paths"])
    assert sorted(path.name for path in place.etc.rglob("*")) == ["folder", "new.json"]


def test_a_removed_secret_is_not_shown(place: Runner) -> None:
    (place.etc / "tokens").mkdir()
    (place.etc / "tokens/old").write_text("s3cret")
    result = place("--check", "--diff", files=[place.directory("tokens", prune=True, secret=True)])
    assert result["changed"]
    assert "s3cret" not in json.dumps(result)


def test_a_secret_without_content_is_generated_once(place: Runner) -> None:
    file = place.file("key", None, secret=True, mode="0400")
    first, second = place.each({"files": [file]}, {"files": [file]})
    assert first["changed"]
    assert not second["changed"]
    assert len((place.etc / "key").read_text()) >= 30
    assert place(files=[place.file("key", "given", secret=True, mode="0400")])["changed"]
    assert (place.etc / "key").read_text() == "given"


def test_the_last_file_is_checked_when_the_others_are_written(place: Runner) -> None:
    last = place.file("unit", "x", validate=f"sh -c 'test -e {place.etc}/config && test -s %s'", last=True)
    assert not place(files=[last, place.file("config", "y")]).get("failed")
    assert (place.etc / "unit").read_text() == "x"


def test_check_mode_runs_the_checkers(place: Runner) -> None:
    result = place("--check", files=[place.file("config.yml", "nonsense\n", validate="grep -q sense-made %s")])
    assert result["failed"]
    assert not (place.etc / "config.yml").exists()


def test_the_digest_follows_the_content(place: Runner) -> None:
    files = [place.file("app.yml", text, secret=secret) for secret in (False, True) for text in ("x", "y")]
    results = place.each(*({"files": [file]} for file in files), options=("--check",))
    one, other, secret, other_secret = (result["digest"] for result in results)
    assert one != other
    assert secret == other_secret


def test_changed_mode_or_owner_is_corrected(place: Runner) -> None:
    (place.etc / "app.yml").write_text("x")
    (place.etc / "app.yml").chmod(0o644)
    assert place(files=[place.file("app.yml", "x", mode="0600")])["changed"]
    assert (place.etc / "app.yml").stat().st_mode & 0o777 == 0o600


def test_unknown_keys_are_refused_by_name(place: Runner) -> None:
    wrong = (place.file("app.yml", "x", modus="0600"), place.directory("folder", modus="0700"))
    for result in place.each(*({"files": [one]} for one in wrong)):
        assert result["failed"]
        assert "modus" in result["msg"]


def test_files_are_applied_when_they_are_in_place(place: Runner) -> None:
    command = ["/bin/cat", f"{place.etc}/app.yml"]
    files = [place.file("app.yml", "new")]
    commands = (command, command, ["/bin/true"])
    first, second, silent = place.each(*({"files": files, "apply": command} for command in commands))
    assert first["changed"]
    assert first["applied"] == "new"
    assert second["changed"]
    assert not silent["changed"]


def test_the_words_of_a_command_that_fails_are_the_message(place: Runner) -> None:
    result = place(files=[], apply=["/bin/sh", "-c", "echo it did not start >&2; exit 1"])
    assert result["failed"]
    assert result["msg"] == "it did not start"


def test_check_mode_applies_only_what_is_installed_and_can_see_the_files(place: Runner) -> None:
    command = ["/bin/echo", "loki reload"]
    missing = {"files": [], "apply": ["/no-such-place/program"]}
    nothing_to_write, something, not_installed = place.each(
        {"files": [], "apply": command},
        {"files": [place.file("app.yml", "new")], "apply": command},
        missing,
        options=("--check", "--diff"),
    )
    assert nothing_to_write["diff"] == [{"prepared": "loki reload\n"}]
    assert something["applied"] == ""
    assert not not_installed.get("failed")
    assert place(**missing)["failed"]


# The image that files are for -------------------------------------------------------------------------------------------


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Docker that has the image loki:1."""
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$4" = loki:1 ] && echo sha256:a\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("image", "needed"),
    [
        ({"name": "loki:1", "ids": []}, False),
        ({"name": "loki:1", "ids": ["sha256:b", "sha256:a"]}, False),
        ({"name": "loki:1", "ids": ["sha256:b"]}, True),
        ({"name": "loki:2", "ids": []}, True),
    ],
    ids=["any id", "one of the ids", "another id", "missing"],
)
def test_nothing_is_changed_without_the_image(docker: None, place: Runner, image: dict[str, Any], needed: bool) -> None:
    ran = place.folder / "ran"
    result = place(image=image, files=[place.file("a.yml", "a")], apply=["touch", str(ran)])
    assert result["needs_image"] is needed
    assert result["changed"] is ran.exists() is (place.etc / "a.yml").exists() is not needed


def test_check_mode_without_the_image_lists_the_files_and_runs_no_checker(docker: None, place: Runner) -> None:
    files = [place.file("a.yml", "a", validate="false %s")]
    result = place("--check", image={"name": "loki:2", "ids": []}, files=files)
    assert result["needs_image"]
    assert result["paths"] == [f"{place.etc}/a.yml"]
    assert place("--check", image={"name": "loki:1", "ids": []}, files=files)["failed"]
