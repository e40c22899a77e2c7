#!/usr/bin/env python3
"""Provision this machine: install Ansible in a venv, fetch the project, run site.yml and verify.

cloud-init, Lima and a Vagrant host without Ansible run this program, as root. Run it again at any time.

Settings, from the environment or as lines of /opt/vantage/settings:
  VANTAGE_PROJECT         required: a directory, a .tar.gz, its http(s) URL, or a git URL (#NAME: branch or tag)
  VANTAGE_PROJECT_SHA256  SHA-256 of the .tar.gz; default: not checked
  VANTAGE_IMAGES          directory, or http(s) URL of one, with the image archives and index.json of `make images`;
                          default: images are pulled from their registries
  VANTAGE_INVENTORY       inventory of the project; default: inventory/local
  VANTAGE_EXTRA_VARS      values for ansible-playbook --extra-vars, separated by spaces; a file as @/path
Role variables: /opt/vantage/vars.yml. Status: /opt/vantage/status. Log: /var/log/vantage-provision.log.

It runs with the system's Python (3.9 or newer) and the standard library, before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

HOME = Path(os.environ.get("VANTAGE_HOME", "/opt/vantage"))
LOG = Path(os.environ.get("VANTAGE_LOG", "/var/log/vantage-provision.log"))
SETTINGS = HOME / "settings"
PINS = "tools/requirements/ansible.txt"
# A cloud that gets this program itself as user data finds no settings: fill in VANTAGE_PROJECT here.
DEFAULTS = {
    "VANTAGE_PROJECT": "",
    "VANTAGE_PROJECT_SHA256": "",
    "VANTAGE_IMAGES": "",
    "VANTAGE_INVENTORY": "",
    "VANTAGE_EXTRA_VARS": "",
}
PYTHONS = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"]
STEPS = ["python", "project", "ansible", "images", "site.yml", "verify"]
CA_BUNDLES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
APT = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"]
STARTED = time.monotonic()


class ProvisionError(Exception):
    """Why provisioning failed, and how the operator can fix it: its two arguments."""


def say(text: str) -> None:
    """Print a line with the seconds since the start; it goes to the log too."""
    line = f"vantage: [{time.monotonic() - STARTED:4.0f} s] {text}"
    print(line, flush=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(line + "\n")


def write_status(state: str, step: str, reason: str = "", fix: str = "") -> None:
    """Replace the status file; reason and fix are left out when empty."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lines = {"state": state, "step": step, "since": since, "reason": reason, "fix": fix}
    lines.update(log=str(LOG), again=f"sudo {HOME}/provision")
    new = HOME / "status.new"
    new.write_text("".join(f"{name}: {value}\n" for name, value in lines.items() if value), encoding="utf-8")
    new.replace(HOME / "status")


def run_logged(command: list[str], on_line: Callable[[str], None] = lambda line: None) -> tuple[int, list[str]]:
    """Run a command, write its output to the log as it comes; return its exit code and output."""
    lines = []
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    with LOG.open("a", encoding="utf-8", buffering=1) as log, process:
        try:
            for line in process.stdout or []:
                log.write(line)
                lines.append(line.rstrip())
                on_line(lines[-1])
        except BaseException:
            process.terminate()
            raise
    return process.returncode, lines


def run(command: list[str], problem: str, fix: str) -> None:
    """Run a command; raises ProvisionError with its last lines when it fails."""
    code, lines = run_logged(command)
    if code:
        # A program that retries repeats itself.
        last = " ".join(dict.fromkeys(line.strip() for line in lines[-4:]))
        raise ProvisionError(f"{problem}: {last[-400:]}", fix)


def is_installed(command: list[str]) -> bool:
    """Return whether the command runs without an error."""
    return bool(shutil.which(command[0])) and not subprocess.run(command, capture_output=True, check=False).returncode


def read_settings() -> dict[str, str]:
    """Return the settings by name; the environment wins over the file and is saved for the next run."""
    settings = dict(DEFAULTS)
    if SETTINGS.exists():
        try:
            settings |= dict(word.split("=", 1) for word in shlex.split(SETTINGS.read_text(), comments=True))
        except ValueError as error:
            raise ProvisionError(f"cannot read {SETTINGS}: {error}", "write lines like VANTAGE_PROJECT=value") from None
    given = {name: os.environ[name] for name in DEFAULTS if os.environ.get(name)}
    if given:
        settings.update(given)
        new = HOME / "settings.new"
        new.touch(mode=0o600)
        new.write_text("".join(f"{name}={shlex.quote(settings[name])}\n" for name in DEFAULTS))
        new.replace(SETTINGS)
    return {name.replace("VANTAGE_", ""): value for name, value in settings.items()}


# --- Python ---------------------------------------------------------------------------------------------------
def find_python() -> str | None:
    """Return the path of the first Python that Ansible runs on."""
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    return next((shutil.which(python) for python in PYTHONS if is_installed([python, "-c", code])), None)


def install_packages(*packages: str) -> None:
    """Install packages of the distribution."""
    install = ["dnf", "-y", "-q", "install", *packages]
    if shutil.which("apt-get"):
        # One broken source of another program must not stop the installation.
        run_logged([*APT, "update"])
        install = [*APT, "install", "-y", "--no-install-recommends", *packages]
    fix = "make the distribution's package mirrors reachable from this machine"
    run(install, f"cannot install {' '.join(packages)}", fix)


def get_python() -> str:
    """Return a Python that can run Ansible; it and the programs that this file calls are installed if missing."""
    python = find_python()
    for name in [] if python else ["python3.12", "python3.11"]:
        try:
            install_packages(f"{name}-venv" if shutil.which("apt-get") else name)
            break
        except ProvisionError:
            continue
    python = python or find_python()
    if not python:
        reason = f"no Python 3.11 or newer found, which Ansible needs; python3 is {sys.version.split()[0]}"
        raise ProvisionError(reason, "install python3.11 or a newer one")
    missing = [program for program in ("curl", "git", "tar", "sudo") if not shutil.which(program)]
    if not is_installed([python, "-c", "import ensurepip, venv"]):
        missing.append(f"{Path(python).resolve().name}-venv")
    if not any(map(os.path.exists, CA_BUNDLES)):
        missing.append("ca-certificates")
    if missing:
        install_packages(*missing)
    return python


# --- The project ----------------------------------------------------------------------------------------------
def download(url: str, file: Path, fix: str) -> None:
    """Fetch a URL into a file, which is replaced only by a complete one."""
    new = file.with_name(file.name + ".new")
    options = "--fail --silent --show-error --location --retry 5 --retry-delay 3 --retry-connrefused"
    curl = ["curl", *options.split(), "--connect-timeout", "15", "--remote-time", "--output", str(new), url]
    run(curl, f"cannot fetch {url}", fix)
    new.replace(file)


def unpack(archive: Path, target: Path, source: str, expected_hash: str) -> None:
    """Unpack a .tar.gz after its hash was compared, if one is given."""
    actual_hash = hashlib.sha256(archive.read_bytes()).hexdigest()
    if expected_hash and actual_hash != expected_hash:
        fix = f"check that it is the right file, or correct VANTAGE_PROJECT_SHA256 in {SETTINGS}"
        raise ProvisionError(f"{source} has SHA-256 {actual_hash}, expected {expected_hash}", fix)
    fix = "create the archive with: git archive --format=tar.gz --output=vantage.tar.gz HEAD"
    run(["tar", "-xzf", str(archive), "--no-same-owner", "-C", str(target)], f"{source} is not a .tar.gz", fix)


def get_project(source: str, expected_hash: str) -> Path:
    """Fetch, unpack or copy the project to /opt/vantage/project and return that path."""
    new, project = HOME / "project.new", HOME / "project"
    check = f"check VANTAGE_PROJECT in {SETTINGS}"
    if not source:
        fix = f"add VANTAGE_PROJECT=<URL of a .tar.gz, git URL, or path> to {SETTINGS}"
        raise ProvisionError("VANTAGE_PROJECT is not set", fix)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    url, _, branch = source.partition("#")
    if url.endswith(".git") or source.startswith(("git://", "ssh://", "git@")):
        clone = ["git", "clone", "--quiet", "--depth", "1", *(["--branch", branch] if branch else [])]
        run([*clone, url, str(new)], f"cannot clone {source}", f"{check}, and that this machine can reach it")
    elif source.startswith(("http://", "https://")):
        archive = HOME / "project.tar.gz"
        download(source, archive, f"{check}, and that this machine can reach it")
        unpack(archive, new, source, expected_hash)
        archive.unlink()
    elif Path(source).is_dir():
        # A copy, because Ansible ignores ansible.cfg in a directory that others can write to, as shared folders are.
        ignore = shutil.ignore_patterns(".git", ".venv", ".vagrant")
        shutil.copytree(source, new, symlinks=True, ignore=ignore, dirs_exist_ok=True)
        for images in new.glob("inventory/*/group_vars/all/images.yml"):
            images.unlink()  # paths of the machine that shares the folder
    elif Path(source).is_file():
        unpack(Path(source), new, source, expected_hash)
    else:
        raise ProvisionError(f"{source} is neither a file nor a directory", f"{check}, and that it is mounted")
    # Archives come with or without a directory around everything.
    found = next((path for path in [new, *new.iterdir()] if (path / "site.yml").is_file()), None)
    if not found or not (found / PINS).is_file():
        raise ProvisionError(f"{source} is not this project: site.yml or {PINS} is missing", check)
    shutil.rmtree(project, ignore_errors=True)
    found.rename(project)
    shutil.rmtree(new, ignore_errors=True)
    run(["chmod", "-R", "go-w", str(project)], "cannot change modes", f"read {LOG}")
    return project


# --- Ansible and images ---------------------------------------------------------------------------------------
def venv_stamp(python: str, pins: Path) -> str:
    """Return what the venv was made of: the Python version and a hash of the pins."""
    version = subprocess.check_output([python, "--version"], text=True).strip()
    return f"{version} {hashlib.sha256(pins.read_bytes()).hexdigest()}\n"


def get_ansible(python: str, pins: Path) -> None:
    """Install the pinned Ansible in /opt/vantage/venv, unless it is there."""
    venv, stamp = HOME / "venv", venv_stamp(python, pins)
    if (venv / "stamp").exists() and (venv / "stamp").read_text() == stamp:
        return
    shutil.rmtree(venv, ignore_errors=True)
    run([python, "-m", "venv", str(venv)], "cannot create a venv", f"read {LOG}")
    # pip brings certificates of its own; the operator's additions are in the system's.
    for bundle in filter(os.path.exists, CA_BUNDLES):
        os.environ.setdefault("PIP_CERT", bundle)
    options = "--quiet --disable-pip-version-check --no-cache-dir --no-compile --retries 5 --require-hashes -r"
    fix = "make the package index reachable (or a mirror in /etc/pip.conf), with 1 GB of disk and 512 MB of memory free"
    run([str(venv / "bin/pip"), "install", *options.split(), str(pins)], "pip cannot install Ansible", fix)
    (venv / "stamp").write_text(stamp)


def get_images(source: str) -> list[str]:
    """Return the --extra-vars values that make the roles use image archives, which are downloaded from a URL."""
    if not source:
        return []
    folder = Path(source)
    if source.startswith(("http://", "https://")):
        folder = HOME / "images"
        folder.mkdir(exist_ok=True)
        fix = f"check VANTAGE_IMAGES in {SETTINGS}: serve the directory that `make images` prints"
        index = folder / "index.json"
        for name in ("index.json", "vars.yml"):
            download(f"{source.rstrip('/')}/{name}", folder / name, fix)
        for archive in [folder / entry["file"] for entry in json.loads(index.read_text()).values()]:
            if not archive.is_file() or index.stat().st_mtime > archive.stat().st_mtime:
                say(f"fetching {archive.name}")
                download(f"{source.rstrip('/')}/{archive.name}", archive, fix)
                os.utime(archive)
    # The archives are on this machine already, so nothing has to be copied.
    names = ("vantage_image_archive_dir", "vantage_image_archive_host_dir")
    return [f"@{folder}/vars.yml", *(f"{name}={folder}" for name in names)]


# --- The playbooks --------------------------------------------------------------------------------------------
def show_progress(line: str) -> None:
    """Print the name of a play or task as it starts, and the recap; the log has the rest already."""
    if line.startswith(("PLAY [", "TASK [")) or re.match(r"(localhost|vantage)  .*ok=", line):
        text = line.split("]")[0] + "]" if "[" in line else line
        print(f"vantage: [{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


def run_playbook(playbook: str, inventory: str, extra_vars: list[str]) -> None:
    """Run a playbook on this machine; raises ProvisionError with what Ansible says."""
    variables = [word for value in ["ansible_connection=local", *extra_vars] for word in ("--extra-vars", value)]
    command = [str(HOME / "venv/bin/ansible-playbook"), "-i", inventory, *variables, playbook]
    code, lines = run_logged(command, show_progress)
    if not code:
        return
    errors = [n for n, line in enumerate(lines) if line.startswith(("[ERROR]: ", "fatal: "))]
    shown = lines[errors[0] if errors else -20 :][:40]
    print("\n".join(shown), flush=True)
    reason = shown[0].removeprefix("[ERROR]: ") if errors else f"ansible-playbook {playbook} failed"
    # The first line that the failed program printed.
    printed = re.search(r"^ *stderr: (?:\|-\s+)?(.+)", "\n".join(lines), re.MULTILINE)
    if printed and printed[1] not in reason:
        reason += f": {printed[1]}"
    raise ProvisionError(reason, "correct what the message names; finished steps are not repeated")


def provision(begin: Callable[[str, str], None]) -> None:
    """Run all steps and announce each by `begin`; raises ProvisionError at the first one that fails."""
    settings = read_settings()
    begin("python", "find Python 3.11 or newer, install missing programs")
    python = get_python()
    begin("project", f"get {settings['PROJECT']}")
    project = get_project(settings["PROJECT"], settings["PROJECT_SHA256"])
    begin("ansible", f"install Ansible in {HOME}/venv (a minute or two the first time)")
    get_ansible(python, project / PINS)
    begin("images", settings["IMAGES"] or "pulled from their registries")
    extra_vars = get_images(settings["IMAGES"])
    extra_vars += [f"@{HOME}/vars.yml"] if (HOME / "vars.yml").exists() else []
    extra_vars += settings["EXTRA_VARS"].split()
    inventory = settings["INVENTORY"] or "inventory/local"
    os.chdir(project)
    os.environ.update(ANSIBLE_CONFIG=str(project / "ansible.cfg"), ANSIBLE_FORCE_COLOR="0", PYTHONUNBUFFERED="1")
    begin("site.yml", "install all services (a few minutes)")
    run_playbook("site.yml", inventory, extra_vars)
    begin("verify", "find one request as metric, log line and trace")
    run_playbook("playbooks/verify.yml", inventory, extra_vars)


def interrupt(*_: object) -> NoReturn:
    """Turn a signal into the error of a run that was interrupted."""
    raise ProvisionError("the run was interrupted", "run it again")


def run_steps() -> int:
    """Run all steps, keep the status file and return the exit code."""
    step = "settings"

    def begin(name: str, detail: str) -> None:
        nonlocal step
        step = name
        write_status("running", name)
        say(f"{STEPS.index(name) + 1}/{len(STEPS)} {name}: {detail}")

    try:
        say(time.strftime("started on %Y-%m-%d at %H:%M:%S UTC", time.gmtime()))
        provision(begin)
    except Exception as error:
        if not isinstance(error, ProvisionError):
            with LOG.open("a", encoding="utf-8") as log:
                traceback.print_exc(file=log)
            error = ProvisionError(f"unexpected error: {error!r}", f"read the end of {LOG}")
        reason, fix = error.args
        write_status("failed", step, reason, fix)
        say(f"FAILED in {step}: {reason}")
        say(f"Fix: {fix}")
        say(f"Then run: sudo {HOME}/provision (status: {HOME}/status, log: {LOG})")
        return 1
    write_status("done", "all")
    say(f"DONE: Vantage runs on this machine. Status: {HOME}/status")
    return 0


def main() -> int:
    """Provision this machine, unless another run does, and return the exit code."""
    if os.geteuid() != 0:
        print(f"vantage: provisioning needs root. Run: sudo {sys.argv[0]}", file=sys.stderr)
        return 1
    # cloud-init sets neither a home directory nor a locale.
    os.environ.setdefault("HOME", "/root")
    os.environ.update(LC_ALL="C.UTF-8", DEBIAN_FRONTEND="noninteractive", GIT_TERMINAL_PROMPT="0")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for folder in (HOME, LOG.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"vantage: another run is in progress. Follow it with: tail -f {LOG}", file=sys.stderr)
            return 1
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        if Path(__file__).resolve() != (HOME / "provision").resolve():
            shutil.copyfile(__file__, HOME / "provision")
            (HOME / "provision").chmod(0o755)
        return run_steps()


if __name__ == "__main__":
    sys.exit(main())
