"""What other people's tools expect of the repository."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

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


PINS = [ROOT / "tools/images/images.yml", *sorted(ROLES.glob("*/defaults/main.yml"))]


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
    return re.findall(r"^\s+(\w+ : .*?)\s+TAGS:", done.stdout, re.MULTILINE)


def of_role(tasks: list[str]) -> set[str]:
    return {task.split(" : ")[0] for task in tasks}


@pytest.mark.parametrize("tag", ["docker", "flask_app"])
def test_a_tag_runs_its_role_and_the_preflight_alone(tag: str) -> None:
    # Ansible checks the arguments of all roles, whatever the tags; that touches nothing.
    tasks = [task for task in tasks_of("--tags", tag) if " : Validating arguments " not in task]
    assert of_role(tasks) == {"preflight", tag}


def test_every_role_of_the_playbook_has_its_name_as_a_tag() -> None:
    plays = yaml.safe_load((ROOT / "playbooks/site.yml").read_text(encoding="utf-8"))
    entries = [role for play in plays for role in play["roles"]]
    # Every role depends on `vantage`, which has no task. An engine's role lists its checked arguments only: it includes a role.
    assert {role["role"] for role in entries} == of_role(tasks_of()) - {"vantage"}
    for role in entries:
        assert role["tags"] == (["always"] if role["role"] == "preflight" else [role["role"]])


def test_limit_leaves_the_other_host_alone(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"app": {"hosts": {"web": {}}}, "monitoring": {"hosts": {"mon": {}}}}))
    command = [str(BIN / "ansible-playbook"), "-i", str(inventory), "site.yml", "--list-hosts"]

    def plays(*arguments: str) -> list[list[str]]:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
        return [sorted(re.findall(r"^      (\w+)$", play, re.MULTILINE)) for play in done.stdout.split("  play #")[1:]]

    assert ["mon", "web"] in plays()
    limited = plays("--limit", "web")
    assert ["web"] in limited
    assert all(hosts in ([], ["web"]) for hosts in limited)


def test_ansible_doc_shows_every_role() -> None:
    command = [str(BIN / "ansible-doc"), "--type", "role", "--roles-path", str(ROLES), "--json"]
    done = subprocess.run([*command, *roles()], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert set(shown) == set(roles())
    for role in roles():
        assert set(shown[role]["entry_points"]) == set(specs(role)), role


def test_map_of_the_repository_is_complete() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    parts = [Path(name).parts[:-1] for name in listed]
    folders = {"/".join(part[:depth]) for part in parts for depth in (1, 2, 3) if len(part) >= depth}
    wanted = {name for name in folders if re.fullmatch(r"[^/]+|tools/[^/]+|tools/vantage_tools/[^/]+", name)}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    mapped = set(re.findall(r"^\| `([^`]+)/` \|", text, re.MULTILINE))
    assert wanted == mapped


PACKAGES = [path.parent for path in (ROOT / "tools/vantage_tools").rglob("__init__.py") if path.parent.name != "rules"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_docstring_of_a_package_names_its_modules(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    assert modules <= set(re.findall(r"`(\w+)`", docstring))


def test_table_of_environment_variables_is_complete() -> None:
    pattern = re.compile(r"\bVANTAGE_[A-Z0-9_]*[A-Z0-9]\b")
    command = ["git", "grep", "--untracked", "-hI", "VANTAGE_", "--", ".", ":!*.md", ":!app", ":!tests/unit"]
    used = set(pattern.findall(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout))
    used |= {
        f"VANTAGE_{name.removeprefix('VANTAGE_')}"
        for name in re.findall(r'\w\("([A-Z_]+)"', (ROOT / "Vagrantfile").read_text())
    }
    # The app's own settings, which roles/flask_app sets.
    of_apps = set(pattern.findall((ROOT / "app/README.md").read_text(encoding="utf-8")))
    rows = re.findall(r"^\| (`VANTAGE_.*?) \|", (ROOT / "docs/settings.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert used - of_apps == {name for row in rows for name in pattern.findall(row)}


def test_removed_make_targets_name_their_replacement() -> None:
    for target in ("compose", "docs", "dashboards", "test-report"):
        done = subprocess.run(["make", target], cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 2
        assert re.search(r"`(make|\.venv/bin/vantage) \w+", done.stderr.split(" is now ")[1]), done.stderr


def test_hooks_run_programs_of_the_environment() -> None:
    """`make lint` runs the same checks; pre-commit would fetch anything else."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert {Path(hook["entry"].split()[0]).parent for hook in repository["hooks"]} == {Path(".venv/bin")}


def test_the_example_of_a_workflow_runs_what_there_is() -> None:
    workflow = yaml.safe_load((ROOT / "docs/examples/github-actions.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert "make test" in commands
    assert {command.removeprefix("make ") for command in commands} <= TARGETS
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
