"""No data is lost and every service recovers: killed services, a stopped Docker, an outage of a store, a reboot."""

from __future__ import annotations

import shlex
import time
import uuid

import pytest
from machine import Machine, wait

RATE = 500  # lines a second


class Writer:
    """A unit that prints numbered lines at a steady rate, as a busy app would."""

    def __init__(self, vm: Machine, seconds: int) -> None:
        self.vm, self.mark, self.total = vm, uuid.uuid4().hex[:12], RATE * seconds
        self.unit = vm.host.service(f"vantage-probe-{self.mark}")
        self.begin = time.time()
        code = (
            "import time\n"
            "begin = time.monotonic()\n"
            f"for n in range({self.total}):\n"
            f"    print('level=info probe={self.mark} n=%d.' % n, flush=n % 25 == 0)\n"
            f"    time.sleep(max(0, begin + n / {RATE} - time.monotonic()) if n % 25 == 0 else 0)\n"
        )
        vm.sh(f"printf %s {shlex.quote(code)} > /run/vantage-probe.py")
        # LogRateLimitIntervalSec as in our own units.
        vm.sh(
            f"systemd-run --quiet --unit=vantage-probe-{self.mark} -p LogRateLimitIntervalSec=1s "
            "-p LogRateLimitBurst=100000000 /usr/bin/python3 /run/vantage-probe.py"
        )

    def stored(self) -> set[int]:
        """Return the numbers of the lines that Loki has."""
        query = f'{{service_name="probe-{self.mark}"}} |= `probe={self.mark}`'
        return {int(line.rsplit("n=", 1)[1].rstrip(".")) for _, line in self.vm.log_lines(query, self.begin - 60)}

    def wait_for_more(self) -> None:
        """Wait until Loki has a line that it does not have now, or the writer has ended."""
        before = len(self.stored())
        wait(lambda: len(self.stored()) > before or not self.unit.is_running, 30, self.vm.explain)

    def assert_nothing_lost(self) -> None:
        wait(lambda: not self.unit.is_running, 120)

        def missing() -> list[int]:
            return sorted(set(range(self.total)) - self.stored())

        wait(lambda: not missing(), 60, lambda: f"lost: {missing()[:5]} … of {self.total}\n{self.vm.explain()}")


def pid(vm: Machine, service: str) -> str:
    """Return the process of the service's container; empty if it does not run."""
    shown = vm.try_sh(f"docker inspect --format '{{{{.State.Pid}}}}' vantage-{service}").strip()
    return shown if shown != "0" else ""


def kill(vm: Machine, *services: str) -> float:
    """Kill services and wait until each has a new process and is ready; return the seconds that it took."""
    vm.wait_ready()
    old = {service: pid(vm, service) for service in services}
    assert all(old.values()), vm.explain()
    vm.sh(f"kill -9 {' '.join(old.values())}")

    def are_back() -> bool:
        has_new_process = all(pid(vm, service) not in {"", old[service]} for service in services)
        return has_new_process and not set(services) & set(vm.not_ready())

    return round(wait(are_back, 60, vm.explain), 1)


@pytest.mark.timeout(900)
def test_every_killed_service_is_ready_again_within_15_seconds(vm: Machine) -> None:
    took = {service: kill(vm, service) for service in vm.services if service != "traffic"}
    assert len(took) >= 8, took
    assert max(took.values()) < 15, took


def latencies(vm: Machine, count: int = 60) -> list[float]:
    """Sorted seconds of requests over 12 s, long enough for several exports to fail; each must answer 200."""
    shown = vm.sh(
        f"for i in $(seq {count}); do curl -sS -o /dev/null --max-time 10 -w '%{{http_code}} %{{time_total}}\\n' "
        "http://127.0.0.1:8000/products; sleep 0.2; done"
    )
    rows = [line.split() for line in shown.splitlines()]
    assert len(rows) == count
    assert {code for code, _ in rows} == {"200"}, shown
    return sorted(float(seconds) for _, seconds in rows)


def test_stores_that_are_down_for_a_minute_cost_no_line_and_no_response(vm: Machine) -> None:
    vm.wait_ready()
    writer = Writer(vm, seconds=90)
    calm = latencies(vm)
    writer.wait_for_more()
    vm.sh("systemctl stop vantage-jaeger vantage-loki vantage-prometheus")
    begin = time.monotonic()
    try:
        alone = latencies(vm)
        time.sleep(max(0, begin + 60 - time.monotonic()))
    finally:
        vm.sh("systemctl start vantage-jaeger vantage-loki vantage-prometheus")
    # Every request was answered 200 in both runs; the medians are within what a busy machine scatters.
    assert alone[len(alone) // 2] < 2 * calm[len(calm) // 2] + 0.02, (calm, alone)
    assert alone[-1] < 2, alone
    writer.assert_nothing_lost()


def test_no_line_is_lost_when_promtail_is_killed_five_times(vm: Machine) -> None:
    vm.wait_ready()
    writer = Writer(vm, seconds=40)
    for _ in range(5):
        writer.wait_for_more()
        kill(vm, "promtail")
    writer.assert_nothing_lost()


def remember(vm: Machine) -> tuple[str, dict[str, str], float]:
    """The trace id of a request that has reached all stores, and a target's labels with the time of a newer scrape."""
    trace_id = vm.trace_id()
    sent = vm.now()
    wait(lambda: vm.trace(trace_id), 20)
    wait(lambda: vm.log_lines(f'{{service_name="storefront"}} | trace_id = `{trace_id}`', time.time() - 120), 20)
    # Not any sample: for five minutes one from before an earlier end of Prometheus would be answered too.
    wait(lambda: vm.instant(f"timestamp(up) > {sent}"), 60, vm.explain)
    sample = vm.instant(f"timestamp(up) > {sent}")[0]
    return trace_id, sample["metric"], float(sample["value"][1])


def assert_kept(vm: Machine, remembered: tuple[str, dict[str, str], float]) -> None:
    trace_id, labels, sampled = remembered
    wait(lambda: vm.trace(trace_id), 20)
    query = f'{{service_name="storefront"}} | trace_id = `{trace_id}`'
    wait(lambda: vm.log_lines(query, sampled - 600), 20)
    matchers = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    (kept,) = vm.instant(f"timestamp(up{{{matchers}}})", at=sampled)
    assert float(kept["value"][1]) == sampled, "the sample from before is gone"


# The plain one leaves the socket up: whatever asks for Docker in between wakes it again.
@pytest.mark.parametrize("units", ["docker", "docker.service docker.socket"])
def test_stopping_and_starting_docker_brings_every_service_back(vm: Machine, units: str) -> None:
    vm.wait_ready()
    remembered = remember(vm)
    vm.sh(f"systemctl stop {units}; systemctl start docker")
    vm.wait_ready(90)
    assert_kept(vm, remembered)


def test_killed_stores_keep_what_they_acknowledged(vm: Machine) -> None:
    vm.wait_ready()
    remembered = remember(vm)
    kill(vm, "loki", "jaeger", "prometheus")
    assert_kept(vm, remembered)


def test_reboot_brings_every_service_back_with_its_data(vm: Machine, reboot) -> None:
    vm.wait_ready()
    remembered = remember(vm)
    reboot()
    vm.wait_ready(120)
    assert_kept(vm, remembered)
