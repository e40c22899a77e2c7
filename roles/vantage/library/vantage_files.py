#!/usr/bin/python3
"""Puts several files in place in one round trip: all of them, or none where a checker refuses one."""

from __future__ import annotations

DOCUMENTATION = """
module: vantage_files
short_description: Puts several files in place in one round trip, or none of them
description:
  - A template task costs two round trips a file. This does the folders and files of a service in one.
  - Every changed file is checked before the first is written, so a refused config leaves all others as they were.
    Check mode writes nothing and therefore checks nothing.
author: [Vantage]
options:
  directories:
    description: Folders, with path, mode, owner and group (numbers or names). The parents of files are made as 0755 of root.
    type: list
    elements: dict
    default: []
  files:
    description:
      - Files, with path; one of template, source (both of the role), content, and sources, a pattern of the role's files
        for which path is the folder; mode, owner, group; validate, a command whose %s is the new file;
          backup, to keep what the file was before; and secret, which hides its content in all that is printed.
    type: list
    elements: dict
    default: []
  only:
    description: Folders in which no other file may be; what is left of former versions is removed.
    type: list
    elements: str
    default: []
  secrets:
    description: Set by the action plugin, the contents of secret files by their path.
    type: dict
    default: {}
  show_diff:
    description: Set by the action plugin.
    type: bool
    default: false
"""

EXAMPLES = """
- name: Write Loki's config
  vantage_files:
    files:
      - path: /etc/vantage/loki/loki.yml
        template: loki.yml.j2
        validate: "loki -verify-config -config.file=%s"
"""

RETURN = """
paths:
  description: What was written, removed or given other rights.
  type: list
  returned: always
"""

import grp
import os
import pwd
import shlex
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule


def number(name, table):
    """The numeric id of a user or group given by name or number."""
    text = str(name)
    if text.isdigit():
        return int(text)
    return table(text)


def wanted_rights(item, mode):
    return (
        int(str(item.get("mode", mode)), 8),
        number(item.get("owner", "root"), lambda n: pwd.getpwnam(n).pw_uid),
        number(item.get("group", "root"), lambda n: grp.getgrnam(n).gr_gid),
    )


def current_rights(path):
    """Mode, owner and group, or nothing where the path does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def read(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def set_rights(path, rights):
    os.chown(path, rights[1], rights[2])
    os.chmod(path, rights[0])


class Place:
    """One run of the module."""

    def __init__(self, module):
        self.module = module
        self.paths = []
        self.diff = []

    def note(self, path, before, after, secret=False):
        self.paths.append(path)
        if secret:
            before, after = before and "hidden", "hidden, and other than before"
        if self.module.params["show_diff"] and before != after:
            self.diff.append(
                {"before_header": path, "after_header": path, "before": before or "", "after": after or ""}
            )

    def directory(self, path, rights):
        if current_rights(path) == rights:
            return
        self.note(path, None, None)
        if not self.module.check_mode:
            os.makedirs(path, exist_ok=True)
            set_rights(path, rights)

    def parent(self, path):
        """Makes the folder of a file where there is none; one that is there keeps its rights."""
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            self.parent(folder)
            self.directory(folder, (0o755, 0, 0))

    def temporary(self, item):
        handle, path = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(item["content"])
        return path

    def check(self, item, temporary):
        command = item["validate"] % temporary
        status, out, err = self.module.run_command(shlex.split(command))
        if status:
            said = (err.strip() + "\n" + out.strip()).strip()
            self.module.fail_json(
                msg=f"{item['path']} was not changed, because its checker refuses the new content:\n{said}\n"
                "What ran before still runs. Correct the settings that the message names and run again.",
                command=command,
            )

    def files(self, items):
        changed = [item for item in items if read(item["path"]) != item["content"]]
        if not self.module.check_mode:
            # All checks come before the first write.
            for item in changed:
                item["temporary"] = self.temporary(item)
                if item.get("validate"):
                    self.check(item, item["temporary"])
        for item in items:
            rights, path = wanted_rights(item, "0644"), item["path"]
            if item in changed:
                self.parent(path)
                self.note(path, read(path), item["content"], item.get("secret"))
            elif current_rights(path) != rights:
                self.note(path, None, None)
            if self.module.check_mode:
                continue
            if item in changed:
                if item.get("backup") and os.path.exists(path):
                    self.module.backup_local(path)
                set_rights(item["temporary"], rights)
                self.module.atomic_move(item["temporary"], path)
            if current_rights(path) != rights:
                set_rights(path, rights)

    def prune(self, folder, keep):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            if path not in keep and os.path.isfile(path):
                # What is pruned says nothing of itself; its folder tells whether it was a secret.
                self.note(path, read(path), "", secret="/secrets/" in path)
                if not self.module.check_mode:
                    os.unlink(path)


def main():
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "dict", "default": []},
            # What the files hold may be secret; the task's no_log hides it, and their names stay readable.
            "files": {"type": "list", "elements": "dict", "default": []},
            "only": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "show_diff": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    for item in module.params["files"]:
        if item.get("secret"):
            item["content"] = module.params["secrets"][item["path"]]
    place = Place(module)
    for item in module.params["directories"]:
        place.parent(item["path"])
        place.directory(item["path"], wanted_rights(item, "0755"))
    files = [dict(item) for item in module.params["files"]]
    place.files(files)
    for folder in module.params["only"]:
        place.prune(folder, {item["path"] for item in files})
    module.exit_json(
        changed=bool(place.paths), paths=place.paths, diff=place.diff,
        # The content is long and was shown as a difference where one was asked for.
        invocation={"module_args": {"files": [item["path"] for item in files]}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
