"""`vantage bench`: measures what the README promises, each figure beside its plain counterpart in the same run.

Plain counterparts: a shell script that installs the same engine, loads the same archives and starts the same containers, and
the memory of these; and the app without telemetry. With a base, another checkout is measured in turn with this one. It is not
a test: it never fails because a machine is slow.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vantage_tools.paths import ROOT, cache_dir
from vantage_tools.process import output, run
from vantage_tools.vm import engine
from vantage_tools.vm.container import SystemContainer, write_inventory

NAME = "vantage-bench"
REST_SECONDS = 60  # between the last start and the first look at the memory
SAMPLES, WARM_RUNS = 5, 3
SCRAPE_OFFSET_SECONDS = 2.7  # so that requests are not in step with the scrapes
ARCHIVES = "/var/cache/vantage/images"
COLD, WARM, MEMORY = (
    "site.yml on a bare VM, images at hand",
    "site.yml again, nothing to do",
    "memory of all containers at rest",
)
VISIBLE = "a request is visible as {} after"
# Row -> (unit, aim).
ROWS = {
    COLD: ("s", "≤ 240"), WARM: ("s", "≤ 30"), MEMORY: ("MiB", "≤ 800"),
    **{VISIBLE.format(step): ("s", aim) for step, aim in (("log", "≤ 2"), ("trace", "≤ 3"), ("metric", "≤ 16"))},
}  # fmt: skip
MIB = {"B": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 1024.0}
# Prints what each unit runs, on the machine; the module there is the only program that parses units.
UNITS = (
    "import json, sys; sys.path.insert(0, '/usr/local/lib/vantage'); import vantage_unit; print(json.dumps("
    "[[unit.image, unit.docker_arguments, unit.ready_url] for unit in vantage_unit.installed_units()]))"
)
PLAIN_SCRIPT = """\
set -e
apt-get -qq update >/dev/null; apt-get -qq install -y --no-install-recommends docker.io iptables >/dev/null 2>&1
{loads}
docker network create --subnet 172.29.238.0/24 --gateway 172.29.238.1 vantage
mkdir -p /etc/vantage && tar -C / -xf /root/config.tar
{starts}
{waits}
"""

Results = dict[str, dict[str, list[float]]]


def create_vm() -> None:
    SystemContainer(NAME).down()
    SystemContainer(NAME).up()


def on_vm(command: str) -> str:
    return output("docker", "exec", NAME, "bash", "-c", command)


def seconds(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def plain_script() -> str:
    """Return a script that starts the same containers by hand, from the units of the converged VM."""
    units = json.loads(on_vm(f"python3 -c {shlex.quote(UNITS)}"))
    index = json.loads((cache_dir() / "images/index.json").read_text())
    images = tuple({image for image, _, _ in units})
    archives = {entry["file"] for reference, entry in index.items() if reference.endswith(images)}
    starts = [
        shlex.join(["docker", "run", "--detach", *(a for a in arguments if a != "--rm")]) for _, arguments, _ in units
    ]
    waits = [
        f"until curl -fsS -o /dev/null {shlex.quote(url)}; do sleep 0.2; done 2>/dev/null" for _, _, url in units if url
    ]
    loads = [f"docker load --quiet --input {ARCHIVES}/{name}" for name in sorted(archives)]
    return PLAIN_SCRIPT.format(loads="\n".join(loads), starts="\n".join(starts), waits="\n".join(waits))


def run_plain_script(folder: Path) -> float:
    """Replace the converged VM by one that the plain script sets up; return the seconds that the script took."""
    script, config = folder / "plain.sh", folder / "config.tar"
    script.write_text(plain_script())
    # The configuration, and the data folders without their content.
    on_vm("cd / && tar -cf /root/config.tar etc/vantage --no-recursion var/lib/vantage var/lib/vantage/*")
    output("docker", "cp", f"{NAME}:/root/config.tar", config)
    create_vm()
    for path in (script, config):
        output("docker", "cp", path, f"{NAME}:/root/{path.name}")
    return seconds(lambda: on_vm("bash /root/plain.sh"))


def memory() -> list[float]:
    """Return samples of the MiB of all containers."""
    time.sleep(REST_SECONDS)
    found = []
    for _ in range(SAMPLES):
        used = re.findall(r"^([\d.]+)(\w+)", on_vm("docker stats --no-stream --format '{{.MemUsage}}'"), re.MULTILINE)
        found.append(sum(float(number) * MIB[unit] for number, unit in used))
    return found


def visibility(checkout: Path) -> dict[str, list[float]]:
    """Return the seconds from a request to its log line, trace and metric, by the program of the role verify."""
    program = "/root/follow_request.py"
    output("docker", "cp", checkout / "roles/verify/files/follow_request.py", f"{NAME}:{program}")
    settings = {
        "app": "storefront", "url": "http://127.0.0.1:8000/products", "services": ["storefront", "warehouse"],
        "prometheus": "http://127.0.0.1:9090", "loki": "http://127.0.0.1:3100", "jaeger": "http://127.0.0.1:16686",
    }  # fmt: skip
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(SAMPLES):
        time.sleep(SCRAPE_OFFSET_SECONDS)
        table = on_vm(shlex.join(["python3", program, json.dumps(settings)]))
        took = {line.split()[0]: float(line.split()[1]) for line in table.splitlines()[1:]}
        for step in ("log", "trace", "metric"):
            found[VISIBLE.format(step)].append(took[step])
    return found


def measure(checkouts: dict[str, Path], rounds: int, folder: Path, results: Results) -> None:
    """Add the figures of each checkout and of the plain script to the results."""

    def deploy(checkout: Path) -> None:
        output("ansible-playbook", "-i", folder, "site.yml", cwd=checkout)

    for _ in range(rounds):
        # This checkout comes last, because the plain script is made of its VM.
        for name, checkout in reversed(checkouts.items()):
            create_vm()
            results[COLD][name].append(seconds(lambda: deploy(checkout)))  # noqa: B023  # called at once
        results[COLD]["plain"].append(run_plain_script(folder))
    results[MEMORY]["plain"] = memory()
    for name, checkout in checkouts.items():
        create_vm()
        deploy(checkout)
        results[WARM][name] = [seconds(lambda: deploy(checkout)) for _ in range(WARM_RUNS)]  # noqa: B023
        results[MEMORY][name] = memory()
        for row, values in visibility(checkout).items():
            results[row][name] = values


def print_table(results: Results, columns: list[str]) -> None:
    print(f"{'median (min–max)':<44}{'unit':<5}{''.join(f'{name:<28}' for name in columns)}aim")
    for row, (unit, aim) in ROWS.items():
        cells = [
            f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else "-"
            for values in (results[row][name] for name in columns)
        ]
        print(f"{row:<44}{unit:<5}{''.join(f'{cell:<28}' for cell in cells)}{aim}")


def bench(
    rounds: Annotated[int, typer.Option(help="Rounds of the deployments.")] = 3,
    base: Annotated[Path | None, typer.Option(help="Another checkout, to compare with.", exists=True)] = None,
) -> None:
    """Measure deployment time, memory and overhead."""
    engine.get_images()
    checkouts = {"this": ROOT} | ({"base": base.resolve()} if base else {})
    variables = {
        "ansible_connection": "community.docker.docker", "ansible_user": "root", "vantage_image_archive_host_dir": ARCHIVES,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix=NAME) as temporary:
        folder = Path(temporary)
        write_inventory(folder, NAME, variables)
        results: Results = {row: defaultdict(list) for row in ROWS}
        try:
            measure(checkouts, rounds, folder, results)
        finally:
            # Also after a failure: what was measured took minutes.
            print_table(results, [*checkouts, "plain"])
            SystemContainer(NAME).down()
    for name, checkout in checkouts.items():
        print(f"\nThe app's cheapest route, with full telemetry and without ({name}):", flush=True)
        environment = os.environ | {"PYTHONPATH": str(checkout / "app/src")}
        run(sys.executable, checkout / "app/bench/throughput.py", env=environment)
