"""Renders files on the controller and hands them to the module of the same name, all in one round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

KEYS = {"path", "sources", "template", "content", "source", "mode", "owner", "group", "validate", "backup", "secret"}


class ActionModule(ActionBase):
    """See roles/vantage/library/vantage_files.py for the arguments."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        files = [self.rendered(file) for given in arguments.pop("files", []) for file in self.expanded(dict(given))]
        # Apart, because a module writes its arguments into the journal of the host.
        secrets = {file["path"]: file.pop("content") for file in files if file.get("secret")}
        arguments |= {"files": files, "secrets": secrets, "show_diff": self._task.diff}
        return result | self._execute_module("vantage_files", module_args=arguments, task_vars=task_vars)

    def expanded(self, file: dict[str, Any]) -> list[dict[str, Any]]:
        """The file itself, or one for each file of the role that its `sources` pattern names."""
        pattern = file.pop("sources", None)
        if not pattern:
            return [file]
        folder, _, names = str(pattern).rpartition("/")
        found = sorted(Path(self._find_needle("files", folder)).glob(names))
        return [file | {"path": f"{file['path']}/{path.name}", "source": str(path)} for path in found]

    def rendered(self, file: dict[str, Any]) -> dict[str, Any]:
        """The file with its text as `content`, from a template of the role, a file of the role, or as it is."""
        if unknown := set(file) - KEYS:
            raise AnsibleActionFail(f"vantage_files: {file.get('path')} has unknown keys: {', '.join(sorted(unknown))}")
        if template := file.pop("template", None):
            lookup = "{{ lookup('ansible.builtin.template', '" + template + "') }}"
            file["content"] = self._templar.template(trust_as_template(lookup))
        elif source := file.pop("source", None):
            file["content"] = Path(self._find_needle("files", source)).read_text(encoding="utf-8")
        if not isinstance(file.get("content"), str):
            raise AnsibleActionFail(
                f"vantage_files: {file.get('path')} needs a template, a source or a text as content"
            )
        return file
