"""What must survive: killed engines, a stopped Docker, an outage of each store, a reboot. Bounded in count and time."""

from __future__ import annotations

import time
import uuid

import pytest
from machine import Machine, wait

# No test waits for the traffic generator.
UNWATCHED = {"traffic"}
RATE = 500  # lines a second


class Writer:
    """A unit that prints numbered lines at a steady rate, as a busy app would."""

    def __init__(self, vm: Machine, seconds: int) -> None:
        self.vm, self.mark, self.total = vm, uuid.uuid4().hex[:12], RATE * seconds
        self.begin = time.time()
        code = (
            "import time\n"
            "begin = time.monotonic()\n"
            f"for n in range({self.total}):\n"
            f"    print('level=info probe={self.mark} n=%d.' % n, flush=n % 25 == 0)\n"
            f"    time.sleep(max(0, begin + n / {RATE} - time.monotonic()) if n % 25 == 0 else 0)\n"
        )
        vm.sh(f"printf %s {shell_quote(code)} > /run/vantage-probe.py")
        # LogRateLimitIntervalSec as in our own units.
        vm.sh(
            f"systemd-run --quiet --unit=vantage-probe-{self.mark} -p LogRateLimitIntervalSec=0 "
            "/usr/bin/python3 /run/vantage-probe.py"
        )

    def running(self) -> bool:
        return self.vm.try_sh(f"systemctl is-active vantage-probe-{self.mark}").strip() == "active"

    def missing(self) -> list[int]:
        """The numbers of the lines that Loki does not have."""
        query = f'{{service_name="probe-{self.mark}"}} |= `probe={self.mark}`'
        found = {int(line.rsplit("n=", 1)[1].rstrip(".")) for _, line in self.vm.log_lines(query, self.begin - 60)}
        return sorted(set(range(self.total)) - found)

    def assert_nothing_lost(self) -> None:
        wait(lambda: not self.running(), 120)
        begin = time.monotonic()
        while (missing := self.missing()) and time.monotonic() - begin < 60:
            time.sleep(2)
        assert not missing, f"{len(missing)} of {self.total} lines lost, first {missing[:5]}\n{self.vm.explain()}"


def shell_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def pid(vm: Machine, service: str) -> str:
    """The process of the service's container; empty where it does not run."""
    shown = vm.try_sh(f"docker inspect --format '{{{{.State.Pid}}}}' vantage-{service}").strip()
    return shown if shown != "0" else ""


def seconds_to_recover(vm: Machine, service: str) -> float:
    """From the kill to a new process that is ready."""
    vm.wait_ready()
    old = pid(vm, service)
    assert old, vm.explain()
    begin = time.monotonic()
    vm.sh(f"kill -9 {old}")
    wait(lambda: pid(vm, service) not in {"", old} and service not in vm.not_ready(), 60, vm.explain)
    return round(time.monotonic() - begin, 1)


@pytest.mark.timeout(900)
def test_every_killed_service_is_back_and_ready_within_15_seconds(vm: Machine) -> None:
    took = {service: seconds_to_recover(vm, service) for service in vm.services if service not in UNWATCHED}
    assert len(took) >= 8, took
    assert max(took.values()) < 15, took


def test_no_line_is_lost_while_loki_is_down_for_a_minute(vm: Machine) -> None:
    vm.wait_ready()
    writer = Writer(vm, seconds=75)
    time.sleep(5)
    vm.sh("systemctl stop vantage-loki")
    time.sleep(60)
    vm.sh("systemctl start vantage-loki")
    writer.assert_nothing_lost()


def test_no_line_is_lost_when_promtail_is_killed_five_times(vm: Machine) -> None:
    vm.wait_ready()
    writer = Writer(vm, seconds=40)
    for _ in range(5):
        time.sleep(5)
        vm.sh("kill -9 $(docker inspect --format '{{.State.Pid}}' vantage-promtail)")
        wait(lambda: "promtail" not in vm.not_ready(), 30, vm.explain)
    writer.assert_nothing_lost()


def test_app_serves_as_fast_with_all_stores_stopped(vm: Machine) -> None:
    vm.wait_ready()
    calm = latencies(vm)
    vm.sh("systemctl stop vantage-jaeger vantage-loki vantage-prometheus")
    try:
        alone = latencies(vm)
    finally:
        vm.sh("systemctl start vantage-jaeger vantage-loki vantage-prometheus")
    # Every request was answered 200 in both runs; the medians are within what a busy machine scatters.
    assert alone[len(alone) // 2] < 2 * calm[len(calm) // 2] + 0.02, (calm, alone)
    assert alone[-1] < 2, alone


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


UP = 'up{service_name="storefront"}'


def remember(vm: Machine) -> tuple[str, float]:
    """The trace id of a request that has reached all stores, and the time of a sample from after it."""
    trace_id = vm.trace_id()
    sent = vm.sh("date +%s.%N").strip()
    wait(lambda: vm.trace(trace_id), 20)
    wait(lambda: vm.log_lines(f'{{service_name="storefront"}} | trace_id = `{trace_id}`', time.time() - 120), 20)
    # Not any sample: for five minutes one from before an earlier end of Prometheus would be answered too.
    wait(lambda: vm.instant(f"{UP} == 1 and timestamp({UP}) > {sent}"), 60, vm.explain)
    (sample,) = vm.instant(f"timestamp({UP})")
    return trace_id, float(sample["value"][1])


def assert_kept(vm: Machine, remembered: tuple[str, float]) -> None:
    trace_id, sampled = remembered
    wait(lambda: vm.trace(trace_id), 20)
    query = f'{{service_name="storefront"}} | trace_id = `{trace_id}`'
    wait(lambda: vm.log_lines(query, sampled - 600), 20)
    (kept,) = vm.instant(f"timestamp({UP})", at=sampled)
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
    vm.sh("for s in loki jaeger prometheus; do kill -9 $(docker inspect --format '{{.State.Pid}}' vantage-$s); done")
    time.sleep(3)
    vm.wait_ready(60)
    assert_kept(vm, remembered)


def test_reboot_brings_every_service_back_with_its_data(vm: Machine, reboot) -> None:
    vm.wait_ready()
    remembered = remember(vm)
    reboot()
    vm.wait_ready(120)
    assert_kept(vm, remembered)
