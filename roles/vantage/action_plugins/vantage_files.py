"""Renders files on the controller and hands them to the module of the same name, all in one round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

DIRECTORY_KEYS = {"path", "mode", "owner", "group", "prune", "secret"}
TEXT_KEYS = {"sources", "template", "content", "source"}
FILE_KEYS = {"path", "mode", "owner", "group", "validate", "backup", "secret", "last"} | TEXT_KEYS


class ActionModule(ActionBase):
    """See roles/vantage/library/vantage_files.py for the arguments."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        for directory in arguments.get("directories", []):
            require_known_keys(directory, DIRECTORY_KEYS)
        files = [self.render(file) for given in arguments.pop("files", []) for file in self.expand(dict(given))]
        # Apart, because a module writes its arguments into the journal of the host.
        secrets = {file["path"]: file.pop("content") for file in files if file.get("secret")}
        arguments |= {"files": files, "secrets": secrets, "show_diff": self._task.diff}
        return result | self._execute_module("vantage_files", module_args=arguments, task_vars=task_vars)

    def expand(self, file: dict[str, Any]) -> list[dict[str, Any]]:
        """The file itself, or one for each file of the role that its `sources` pattern names."""
        pattern = file.pop("sources", None)
        if not pattern:
            return [file]
        folder, _, names = str(pattern).rpartition("/")
        found = sorted(Path(self._find_needle("files", folder)).glob(names))
        return [file | {"path": f"{file['path']}/{path.name}", "source": str(path)} for path in found]

    def render(self, file: dict[str, Any]) -> dict[str, Any]:
        """The file with its text as `content`, from a template of the role, a file of the role, or as it is."""
        require_known_keys(file, FILE_KEYS)
        if template := file.pop("template", None):
            # As JSON, so that no quote in the name ends the string.
            lookup = "{{ lookup('ansible.builtin.template', " + json.dumps(str(template)) + ") }}"
            file["content"] = self._templar.template(trust_as_template(lookup))
        elif source := file.pop("source", None):
            file["content"] = Path(self._find_needle("files", source)).read_text(encoding="utf-8")
        is_generated = file.get("secret") and file.get("content", "") is None
        if not isinstance(file.get("content"), str) and not is_generated:
            raise AnsibleActionFail(
                f"vantage_files: {file.get('path')} has no text (template, source, or content). Set one of them."
            )
        return file


def require_known_keys(item: dict[str, Any], known: set[str]) -> None:
    """Raises AnsibleActionFail for a key of a directory or file that does not exist."""
    if unknown := sorted(set(item) - known):
        raise AnsibleActionFail(
            f"vantage_files: {item.get('path')} has unknown keys: {', '.join(unknown)} ({', '.join(sorted(known))})."
        )
