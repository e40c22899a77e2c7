"""YAML as it is written here."""

from __future__ import annotations

from typing import Any

import yaml


class Plain(yaml.SafeDumper):
    """Without anchors: each service can be read by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _string(dumper: Plain, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Plain.add_representer(str, _string)


def text_of(document: dict[str, Any]) -> str:
    """The document as text."""
    return yaml.dump(document, Dumper=Plain, sort_keys=False, width=140, allow_unicode=True)


def plain(value: Any) -> Any:
    """The same without Ansible's marks on its strings."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value
