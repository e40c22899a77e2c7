#!/usr/bin/python3
"""Asks HTTP services of the host a list of questions at once and brings the answers back in one round trip."""

from __future__ import annotations

DOCUMENTATION = """
module: vantage_ask
short_description: Asks HTTP services of the host many questions in one round trip
description:
  - The engines listen on the host's 127.0.0.1 alone, so the questions are asked there. It only reads, and changes nothing.
author: [Vantage]
options:
  urls:
    description: What to get, one URL a question.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds that one answer may take.
    type: float
    default: 20
  parallel:
    description: Questions that are asked at the same time.
    type: int
    default: 4
"""

EXAMPLES = """
- name: Ask Prometheus what is up
  vantage_ask:
    urls: ["http://127.0.0.1:9090/api/v1/query?query=up"]
"""

RETURN = """
answers:
  description: base64 of zlib of a JSON list, for each URL its JSON body or what went wrong, and the seconds it took.
  type: str
  returned: always
"""

import base64
import json
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

# A proxy of the environment is for the world outside; the engines are on this host.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url, timeout):
    """The answer to one question: `body`, or `error` in words."""
    begin = time.monotonic()
    answer = {}
    try:
        with OPENER.open(url, timeout=timeout) as response:
            answer["body"] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            answer["error"] = f"HTTP {error.code}: {error.read(300).decode(errors='replace').strip()}"
    except urllib.error.URLError as error:
        answer["error"] = str(error.reason)
    except (OSError, ValueError) as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = time.monotonic() - begin
    return answer


def ask_all(urls, timeout, parallel):
    """The answers in the order of the URLs."""
    with ThreadPoolExecutor(max_workers=max(1, parallel)) as pool:
        return list(pool.map(lambda url: ask(url, timeout), urls))


def main():
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "float", "default": 20},
            "parallel": {"type": "int", "default": 4},
        },
        supports_check_mode=True,
    )
    answers = ask_all(module.params["urls"], module.params["timeout"], module.params["parallel"])
    packed = base64.b64encode(zlib.compress(json.dumps(answers).encode(), 6)).decode()
    module.exit_json(changed=False, answers=packed)


if __name__ == "__main__":
    main()
