"""What other people's tools expect of the repository."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROLES, ROOT, roles, specs

# Beside the Python that runs the tests, whatever PATH says.
BIN = Path(sys.executable).parent
RENOVATE = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def found_by_renovate(path: Path) -> list[dict[str, str]]:
    """What the regex manager would find in a file that it looks into."""
    (manager,) = RENOVATE["customManagers"]
    name = str(path.relative_to(ROOT))
    if not any(re.search(pattern.strip("/"), name) for pattern in manager["managerFilePatterns"]):
        return []
    (pattern,) = manager["matchStrings"]
    # JavaScript writes a named group without the P.
    return [m.groupdict() for m in re.finditer(pattern.replace("(?<", "(?P<"), path.read_text(encoding="utf-8"))]


PINS = [ROOT / "images/images.yml", *sorted(ROLES.glob("*/defaults/main.yml"))]


@pytest.mark.parametrize("path", PINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_renovate_sees_every_pinned_version(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = found_by_renovate(path)
    assert len(found) == text.count("# renovate:")
    pulled = re.findall(r"^\s*(?:\w+_image|pull): (?:docker\.io/)(\S+):(\S+)$", text, re.MULTILINE)
    # The demo's image is ours, and in no registry.
    wanted = {(name, tag) for name, tag in pulled if not name.startswith("vantage/")}
    assert wanted <= {(match["depName"], match["currentValue"]) for match in found}


def test_renovate_sees_a_version_of_each_engine() -> None:
    found = {match["depName"] for path in PINS for match in found_by_renovate(path)}
    assert {"prom/prometheus", "grafana/loki", "grafana/promtail", "jaegertracing/jaeger", "grafana/grafana"} <= found
    assert "github.com/docker/compose/v5" in found


def test_requirements_name_every_collection_that_is_used() -> None:
    named = {entry["name"] for entry in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]}
    used: set[str] = set()
    for folder in ("roles", "playbooks", "inventory", "molecule"):
        for path in (ROOT / folder).rglob("*.yml"):
            text = path.read_text(encoding="utf-8")
            used |= set(re.findall(r"^\s*(?:- )?(\w+\.\w+)\.\w+:", text, re.MULTILINE))
            used |= set(re.findall(r"ansible_connection: (\w+\.\w+)\.\w+", text))
            used |= set(re.findall(r"lookup\('(\w+\.\w+)\.\w+'", text))
    assert "ansible.builtin" in used
    assert used - {"ansible.builtin"} == named


@functools.cache
def tasks_of(*arguments: str) -> list[str]:
    """The tasks that site.yml would come to, as `role : task`."""
    command = [str(BIN / "ansible-playbook"), "-i", "inventory/local", "site.yml", "--list-tasks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^\s+(\w+ : .*?)\s+TAGS:", done.stdout, re.MULTILINE)
    # Ansible checks the arguments of all roles, whatever the tags; that touches nothing.
    return [task for task in found if " : Validating arguments " not in task]


def of_role(tasks: list[str]) -> set[str]:
    return {task.split(" : ")[0] for task in tasks}


@pytest.mark.parametrize("tag", ["prometheus", "grafana", "flask_app"])
def test_a_tag_runs_its_role_and_the_preflight_alone(tag: str) -> None:
    assert of_role(tasks_of("--tags", tag)) == {"preflight", tag}


def test_every_role_of_the_playbook_has_its_name_as_a_tag() -> None:
    plays = yaml.safe_load((ROOT / "playbooks/site.yml").read_text(encoding="utf-8"))
    entries = [role for play in plays for role in play["roles"]]
    assert {role["role"] for role in entries} == of_role(tasks_of())
    for role in entries:
        assert role["tags"] == (["always"] if role["role"] == "preflight" else [role["role"]])


def test_limit_leaves_the_other_host_alone(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"app": {"hosts": {"web": {}}}, "monitoring": {"hosts": {"mon": {}}}}))
    command = [str(BIN / "ansible-playbook"), "-i", str(inventory), "site.yml", "--list-hosts"]

    def plays(*arguments: str) -> list[list[str]]:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
        return [sorted(re.findall(r"^      (\w+)$", play, re.MULTILINE)) for play in done.stdout.split("  play #")[1:]]

    assert any(hosts == ["mon", "web"] for hosts in plays())
    assert all(hosts in ([], ["web"]) for hosts in plays("--limit", "web"))
    assert any(hosts == ["web"] for hosts in plays("--limit", "web"))


def test_ansible_doc_shows_every_role() -> None:
    command = [str(BIN / "ansible-doc"), "--type", "role", "--roles-path", str(ROLES), "--json"]
    done = subprocess.run([*command, *roles()], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert set(shown) == set(roles())
    for role in roles():
        assert set(shown[role]["entry_points"]) == set(specs(role)), role


def test_make_targets_are_completed() -> None:
    script = (
        "source scripts/completion.bash; COMP_WORDS=(make compose-); COMP_CWORD=1; _vantage_make; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.split()) == {target for target in TARGETS if target.startswith("compose-")}
    assert len(done.stdout.split()) >= 3
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "source <(make --silent completion)" in text


def hooks() -> list[dict[str, Any]]:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local", "anything else is fetched"
    return list(repository["hooks"])


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: str(hook["id"]))
def test_every_hook_runs_here_and_takes_a_good_file(hook: dict[str, Any]) -> None:
    words = hook["entry"].split()
    kind = {"python": "compose/ports.py", "yaml": "requirements.yml"}
    files = [] if hook.get("pass_filenames") is False else [kind[name] for name in hook["types"]]
    program = ROOT / words[0]
    if not program.exists():
        pytest.skip("the tools are not in .venv here")
    done = subprocess.run([program, *words[1:], *files], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hook["language"] == "system"


def test_the_example_of_a_workflow_runs_what_there_is() -> None:
    workflow = yaml.safe_load((ROOT / "docs/examples/github-actions.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert "make test" in commands
    assert {command.removeprefix("make ") for command in commands} <= TARGETS
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
