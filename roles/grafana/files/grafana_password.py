#!/usr/bin/env python3
"""Resets Grafana's admin password when the one in the file does not log in: grafana_password.py URL [FILE [CONTAINER]]

The password travels in a header and on standard input, never in an argument list.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

SECRET = "/etc/vantage/secrets/grafana/admin_password"
RESET = "grafana cli --homepath=/usr/share/grafana admin reset-admin-password --password-from-stdin"


def logs_in(url: str, password: str) -> bool:
    credentials = base64.b64encode(f"admin:{password}".encode()).decode()
    request = urllib.request.Request(f"{url}/api/user", headers={"Authorization": f"Basic {credentials}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return False
        raise


def main(url: str, file: str = SECRET, container: str = "vantage-grafana") -> None:
    password = Path(file).read_text(encoding="utf-8").strip()
    try:
        if logs_in(url, password):
            return
        command = ["docker", "exec", "--interactive", container, *RESET.split()]
        result = subprocess.run(
            command, check=False, input=password + "\n", capture_output=True, text=True, errors="replace"
        )
        if result.returncode or not logs_in(url, password):
            sys.exit(
                f"cannot set Grafana's password to the one in {file}: {result.stderr.strip()[-500:]}. Grafana locks the "
                "account for five minutes after failed logins. Run site.yml again then."
            )
    except OSError as error:
        sys.exit(f"Grafana does not answer at {url}: {error}. See journalctl -u vantage-grafana.service.")
    print("password reset")


if __name__ == "__main__":
    main(*sys.argv[1:])
