"""The tables of variables in the roles' READMEs, from their argument specs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vantage_tools.paths import ROLES

MARK = "<!-- The rest is rendered by `make render` from meta/argument_specs.yml. -->"


def readmes() -> dict[Path, str]:
    roles = [specs.parents[1] for specs in ROLES.glob("*/meta/argument_specs.yml")]
    return {role / "README.md": readme(role) for role in roles}


def readme(role: Path) -> str:
    """Return the README's own text and the tables of its role's variables."""
    text = (role / "README.md").read_text(encoding="utf-8")
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    lines = [re.split("<!-- The rest is .* -->", text)[0].rstrip(), "", MARK]
    for entry, spec in specs.items():
        has_tasks = (role / "tasks" / f"{entry}.yml").exists()
        heading = f"Variables of tasks_from {entry}.yml" if has_tasks else spec["short_description"]
        lines += ["", "## " + ("Variables" if entry == "main" else heading), "", *table(spec["options"])]
        lines += nested_tables(spec["options"])
    return "\n".join(lines) + "\n"


def nested_tables(options: Mapping[str, Mapping[str, Any]], parent: str = "") -> list[str]:
    """Return the tables of the options within options, each under its path."""
    lines: list[str] = []
    for name, option in options.items():
        if "options" in option:
            path = f"{parent}.{name}" if parent else name
            title = f"One of `{path}`" if option["type"] == "list" else f"Keys of `{path}`"
            lines += ["", f"### {title}", "", *table(option["options"]), *nested_tables(option["options"], path)]
    return lines


def table(options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        lines.append(f"| `{name}` | {kind} | {default(option)} | {option['description']}{choices} |")
    return lines


def default(option: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "**required**"
    if "default" not in option:
        return ""
    value = option["default"]
    text = value if isinstance(value, str) else json.dumps(value)
    if len(json.dumps(value)) > 70:
        return "see defaults/main.yml"
    return "`" + text.replace("|", "\\|").replace("\n", " ") + "`" if text else "empty"
