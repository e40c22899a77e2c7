"""What the inventory of the laptop says, as the roles see it."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[1]
ROLES = ROOT / "roles"
INVENTORY = ROOT / "inventory" / "compose"

# Where a laptop differs from a host: it has no units, so no journal with their lines and nothing of systemd to count.
# And Compose itself builds an app from its source, under the name that was given.
OF_LAPTOP = {
    "__promtail_source": "docker",
    "__node_exporter_systemd": False,
    "__flask_app_build": False,
    "__flask_app_image": trust_as_template(
        "{{ __flask_app.image | default('vantage/' ~ __flask_app.name ~ ':local', true) }}"
    ),
}


class Refused(Exception):
    """A setting that cannot be; the message names it, the reason and the fix."""


def load(path: Path) -> Any:
    """A YAML file as Ansible reads it: its strings may be templates."""
    return DataLoader().load_from_file(str(path), trusted_as_template=True)


@functools.cache
def load_plugins() -> None:
    """Lets Ansible find the filters of the roles."""
    init_plugin_loader()
    for folder in ROLES.glob("*/filter_plugins"):
        filter_loader.add_directory(str(folder))


def of_laptop(inventory: Path, extra: Sequence[Path] = ()) -> dict[str, Any]:
    """The variables of the one host of `inventory`, those of the files `extra` over them.

    Raises Refused where there is not one host, and for what the preflight of a run would refuse.
    """
    try:
        loader = DataLoader()
        manager = InventoryManager(loader, sources=[str(inventory)])
        hosts = manager.get_hosts("app:monitoring")
        if len(hosts) != 1 or len(manager.get_hosts("app:&monitoring")) != 1:
            raise Refused(
                f"{inventory} has {len(hosts)} hosts in the groups app and monitoring; "
                "docker-compose.yml is for one machine: name one host, in both groups."
            )
        (host,) = hosts
        given = dict(VariableManager(loader, manager).get_vars(host=host, include_hostvars=False))
        for path in extra:
            given |= load(path) or {}
    except AnsibleError as error:
        raise Refused(f"{inventory} cannot be read: {error}") from error
    check(given, loader)
    return given | {
        # As for a playbook of playbooks/, which finds the app beside itself.
        "playbook_dir": str(ROOT / "playbooks"),
        "hostvars": {host.name: given},
        "ansible_managed": "Ansible managed",
        "ansible_check_mode": False,
    }


def check(given: dict[str, Any], loader: DataLoader) -> None:
    """Raises Refused for what the preflight of a run would refuse, in its words."""
    source = ROLES / "preflight/action_plugins/preflight_variables.py"
    spec = importlib.util.spec_from_file_location("preflight_variables", source)
    assert spec is not None and spec.loader is not None
    preflight = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(preflight)
    defaults: dict[str, Any] = {}
    for path in ROLES.glob("*/defaults/main.yml"):
        defaults |= load(path)
    templar = Templar(loader=loader, variables=defaults | given)
    problems = preflight.all_problems(given, templar.template)
    if problems:
        raise Refused("\n".join([*problems, "Correct them in the inventory. Nothing was written."]))
