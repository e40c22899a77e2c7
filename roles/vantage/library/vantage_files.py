#!/usr/bin/python3
"""Puts several files in place in one round trip: all of them, or none if a checker rejects one.

image: what the files are for: its name, and its ids on a host (none: any). If Docker does not have it, needs_image is
returned and nothing is changed; check mode goes on without checkers, which the image may have
files: the files and directories, each with
    path                a path that ends in / is a directory; the parents of files are made as 0755
    mode, owner, group  numbers or names
    secret              hides the content in all output
    prune               of a directory: removes the files below that are not listed
    content             of a file; or template with its vars, source, or sources, a pattern of the role's files for which
                        path is the directory; a secret without any is generated on the host and kept
    validate            of a file: command whose %s is the new file; check mode runs it too
    explained           of a file: what the checker prints says what to do
    backup              of a file: keeps the previous one
    last                of a file: its check needs the others in place
apply: command that makes the files effective and prints what it changes, and to stderr what is a warning; in check mode it
may be missing
secrets, show_diff: set by the action plugin
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import secrets
import shlex
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

# The record of the run that changes this host, see preflight_host: while the run goes on, it does not expire.
RUN_FILE = "/run/vantage-run.json"


def number(name, table):
    """The numeric id of a user or group given by name or number."""
    text = str(name)
    return int(text) if text.isdigit() else table(text)


def wanted_permissions(item, mode):
    """Mode, owner and group; the default owner is the user that runs the module."""
    return (
        int(str(item.get("mode", mode)), 8),
        number(item.get("owner", os.geteuid()), lambda n: pwd.getpwnam(n).pw_uid),
        number(item.get("group", os.getegid()), lambda n: grp.getgrnam(n).gr_gid),
    )


def current_permissions(path):
    """Mode, owner and group; None if the path does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def read(path):
    try:
        # To the byte: a secret may have line breaks of Windows.
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except OSError:
        return None


def set_permissions(path, permissions):
    mode, owner, group = permissions
    os.chown(path, owner, group)
    os.chmod(path, mode)


class FileSet:
    """The directories and files of one run of the module."""

    def __init__(self, module):
        self.module = module
        self.paths = []
        self.diff = []

    def record_change(self, path, before, after, secret=False):
        self.paths.append(path)
        if secret:
            before, after = before and "hidden", after and "hidden, changed"
        if self.module.params["show_diff"] and before != after:
            self.diff.append(
                {"before_header": path, "after_header": path, "before": before or "", "after": after or ""}
            )

    def make_directory(self, path, permissions):
        if current_permissions(path) == permissions:
            return
        self.record_change(path, None, None)
        if not self.module.check_mode:
            os.makedirs(path, exist_ok=True)
            set_permissions(path, permissions)

    def make_parents(self, path):
        """Makes the missing directories above a file; existing ones keep their permissions."""
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            self.make_parents(folder)
            self.make_directory(folder, wanted_permissions({}, "0755"))

    def write_temporary(self, item):
        handle, path = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(item["content"])
        return path

    def check(self, item, temporary):
        command = item["validate"] % temporary
        status, out, err = self.module.run_command(shlex.split(command))
        if status:
            output = (err.strip() + "\n" + out.strip()).strip()
            if item.get("explained"):
                self.module.fail_json(msg=output, command=command)
            self.module.fail_json(
                msg=f"{item['path']} was not changed: its checker rejects the new content:\n{output}\n"
                "The running version is not affected. Correct the settings that it names and run site.yml again.",
                command=command,
            )

    def write_files(self, items):
        changed = [item for item in items if read(item["path"]) != item["content"]]
        # All checks come before the first write.
        for item in changed:
            if item.get("validate") or not self.module.check_mode:
                item["temporary"] = self.write_temporary(item)
            if item.get("validate"):
                self.check(item, item["temporary"])
        for item in items:
            permissions, path = wanted_permissions(item, "0644"), item["path"]
            if item in changed:
                self.make_parents(path)
                self.record_change(path, read(path), item["content"], item.get("secret"))
            elif current_permissions(path) != permissions:
                self.record_change(path, None, None)
            if self.module.check_mode:
                continue
            if item in changed:
                if item.get("backup") and os.path.exists(path):
                    self.module.backup_local(path)
                set_permissions(item["temporary"], permissions)
                self.module.atomic_move(item["temporary"], path)
            if current_permissions(path) != permissions:
                set_permissions(path, permissions)

    def prune(self, directory, keep):
        """Removes the files below the directory that are not among those to keep."""
        for folder, _, names in sorted(os.walk(directory["path"].rstrip("/"))):
            for path in sorted(os.path.join(folder, name) for name in names):
                if path not in keep:
                    self.record_change(path, read(path), "", directory.get("secret"))
                    if not self.module.check_mode:
                        os.unlink(path)

    def apply(self, command):
        """The output of the command; empty in check mode if it is missing, or cannot see the new files."""
        if not command or (self.module.check_mode and (self.paths or not os.path.exists(command[0]))):
            return ""
        status, out, err = self.module.run_command(command)
        if status:
            self.module.fail_json(msg=(err or out).strip(), changed=bool(self.paths), paths=self.paths)
        for line in err.splitlines():
            self.module.warn(line)
        if out and self.module.params["show_diff"]:
            self.diff.append({"prepared": out})
        return out


def lacks_image(module, image):
    """Whether Docker does not have the image, or has it with another id than one of those that it must have."""
    docker = module.get_bin_path("docker")
    if not image or not docker:
        return bool(image)
    status, out, _ = module.run_command([docker, "image", "inspect", "--format={{.Id}}", image["name"]])
    return status != 0 or bool(image["ids"] and out.strip() not in image["ids"])


def main():
    module = AnsibleModule(
        argument_spec={
            # What the files hold may be secret; the task's no_log hides it, and their names stay readable.
            "files": {"type": "list", "elements": "dict", "default": []},
            "image": {"type": "dict", "default": {}},
            "apply": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "show_diff": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    needs_image = lacks_image(module, module.params["image"])
    if needs_image and not module.check_mode:
        module.exit_json(changed=False, needs_image=True)
    directories = [item for item in module.params["files"] if item["path"].endswith("/")]
    files = [dict(item) for item in module.params["files"] if item not in directories]
    for item in files:
        if item.get("secret"):
            item["content"] = module.params["secrets"][item["path"]]
        if item["content"] is None:
            item["content"] = read(item["path"]) or secrets.token_urlsafe(24)
        if needs_image:
            item.pop("validate", None)
    if os.path.exists(RUN_FILE) and not module.check_mode:
        os.utime(RUN_FILE)
    found = FileSet(module)
    for item in directories:
        path = item["path"].rstrip("/")
        found.make_parents(path)
        found.make_directory(path, wanted_permissions(item, "0755"))
    # A check of the last files may start what reads the others.
    found.write_files([item for item in files if not item.get("last")])
    found.write_files([item for item in files if item.get("last")])
    for item in directories:
        if item.get("prune"):
            found.prune(item, {file["path"] for file in files})
    applied = found.apply(module.params["apply"])
    contents = [f"{item['content']}\0" for item in files if not item.get("secret")]
    module.exit_json(
        changed=bool(found.paths or applied), paths=found.paths, applied=applied, needs_image=needs_image, diff=found.diff,
        digest=hashlib.sha256("".join(contents).encode("utf-8", "surrogateescape")).hexdigest(),
        # The content is long and was shown as a difference where one was asked for.
        invocation={"module_args": {"files": [item["path"] for item in files]}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
