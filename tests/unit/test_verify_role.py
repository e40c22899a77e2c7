"""The message of verify when a hop failed, over every kind of connection."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from rendering import ROLES, Host

TASKS = yaml.safe_load((ROLES / "verify/tasks/request.yml").read_text(encoding="utf-8"))
HOP = "verify failed at hop 'log': no line in Loki within 30 s. See journalctl."


@pytest.mark.parametrize(
    "result",
    [
        {"stdout_lines": ["app 0.1 trace"], "stderr_lines": [HOP]},
        {"stdout_lines": ["app 0.1 trace", HOP], "stderr_lines": []},
        {"stdout_lines": ["app 0.1 trace", HOP], "stderr_lines": ["Shared connection to 10.0.0.3 closed."]},
        {"stdout_lines": [HOP], "stderr_lines": ["Connection to 10.0.0.3 closed."]},
        {"stdout_lines": [HOP], "stderr_lines": ["Warning: Permanently added '10.0.0.3' (ED25519) to the list."]},
        {"stdout_lines": [HOP, "bash: warning: shell level"], "stderr_lines": []},
        {"msg": HOP},
    ],
    ids=[
        "apart",
        "over a terminal",
        "over SSH",
        "not multiplexed",
        "a new host",
        "a terminal that talks",
        "not run at all",
    ],
)
def test_message_is_the_hop_that_failed(result: dict[str, Any]) -> None:
    (message,) = [task["ansible.builtin.fail"]["msg"] for task in TASKS if "ansible.builtin.fail" in task]
    assert Host("verify", __verify_result=result).value(trust_as_template(message)) == HOP


@pytest.mark.parametrize("name", ["storefront", "gone"])
def test_app_that_no_longer_runs_is_left_to_the_check(name: str) -> None:
    host = Host("verify", verify_app=name, vantage_apps=[{"name": "blog", "image": "blog:1", "port": 8002}])
    settings = host.value(host.variables["__verify_settings"])
    assert settings["app"] == name
    assert settings["replicas"] == {}
    assert ":0/" in settings["url"]
