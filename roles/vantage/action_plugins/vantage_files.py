"""Renders files on the controller and hands them to the module of the same name, all in one round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

KEYS = {
    *("path", "mode", "owner", "group", "prune", "secret", "validate", "explained", "backup", "last"),
    *("sources", "template", "vars", "content", "source"),
}


class ActionModule(ActionBase):
    """See roles/vantage/library/vantage_files.py for the arguments."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result, variables = super().run(tmp, task_vars), task_vars or {}
        files = [
            self.render(file, variables)
            for given in self._task.args.get("files", [])
            for file in self.expand(dict(given))
        ]
        # Apart, because a module writes its arguments into the journal of the host.
        secrets = {file["path"]: file.pop("content") for file in files if file.get("secret") and "content" in file}
        arguments = self._task.args | {"files": files, "secrets": secrets, "show_diff": self._task.diff}
        return result | self._execute_module("vantage_files", module_args=arguments, task_vars=task_vars)

    def expand(self, file: dict[str, Any]) -> list[dict[str, Any]]:
        """The file itself, or one for each file of the role that its `sources` pattern names."""
        pattern = file.pop("sources", None)
        if not pattern:
            return [file]
        folder, _, names = str(pattern).rpartition("/")
        found = sorted(Path(self._find_needle("files", folder)).glob(names))
        return [file | {"path": f"{file['path']}/{path.name}", "source": str(path)} for path in found]

    def render(self, file: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """The file with its text as `content`, from a template of the role, a file of the role, or as it is."""
        if unknown := sorted(set(file) - KEYS):
            raise AnsibleActionFail(
                f"vantage_files: {file.get('path')} has unknown keys: {', '.join(unknown)} ({', '.join(sorted(KEYS))})."
            )
        if template := file.pop("template", None):
            path = Path(self._find_needle("templates", template))
            # Not the lookup `template`: it copies all variables, a twentieth of a run's CPU time.
            given = {"ansible_managed": "Ansible managed"} | variables | file.pop("vars", {})
            templar = self._templar.copy_with_new_env(searchpath=[str(path.parent)], available_variables=given)
            text = trust_as_template(path.read_text(encoding="utf-8"))
            file["content"] = templar.template(text, escape_backslashes=False)
        elif source := file.pop("source", None):
            file["content"] = Path(self._find_needle("files", source)).read_text(encoding="utf-8")
        may_lack_text = file["path"].endswith("/") or (file.get("secret") and file.get("content", "") is None)
        if not isinstance(file.get("content"), str) and not may_lack_text:
            raise AnsibleActionFail(
                f"vantage_files: {file['path']} has no content (template, source or content). Set one of them."
            )
        return file
