"""Every service runs by systemd, hardened, reachable from this machine alone, with the config of its file."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from machine import Machine, wait

# The reader of the journal is root in its image; it has no capability, only the journal's group.
ROOT_SERVICES = {"promtail"}
# Planted by the molecule scenario as part of a receiver's address.
PLANTED = "planted-secret-5d1c0f"
# Of all services at rest, and Grafana's share of it.
MEMORY_MIB, GRAFANA_MIB = 800, 150
EXPECTED = {"prometheus", "loki", "promtail", "jaeger", "alertmanager", "node-exporter", "storefront", "warehouse"}


def test_every_service_is_active_enabled_and_ready(vm: Machine) -> None:
    assert set(vm.services) >= EXPECTED
    assert not vm.not_ready(), vm.explain()
    for service in vm.services:
        assert vm.host.service(f"vantage-{service}").is_enabled


def test_docker_runs_the_containers_of_the_units_alone(vm: Machine) -> None:
    names = set(vm.sh("docker ps --all --format '{{.Names}}'").split())
    assert names == {f"vantage-{service}" for service in vm.services}


def test_containers_are_hardened(vm: Machine) -> None:
    # Where a system container's host keeps the controllers to itself, there is nothing to limit with, and Docker drops the limits.
    limited = vm.sh("docker info --format '{{.MemoryLimit}} {{.PidsLimit}}'").split() == ["true", "true"]
    assert limited or vm.sh("cat /sys/fs/cgroup/cgroup.controllers").strip() == ""
    for service in vm.services:
        found = vm.inspect(service)
        host = found["HostConfig"]
        user = found["Config"]["User"]
        assert re.fullmatch(r"\d+:\d+", user), (service, user)
        assert (user.split(":")[0] == "0") == (service in ROOT_SERVICES), (service, user)
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["CapAdd"], service
        assert not host["Privileged"], service
        assert "no-new-privileges" in host["SecurityOpt"], service
        if limited:
            assert host["Memory"] > 0, service
            assert host["PidsLimit"] > 0, service
        assert host["LogConfig"]["Type"] == "none", service
        assert host["RestartPolicy"]["Name"] in {"", "no"}, service
        assert "docker.sock" not in json.dumps(host["Binds"]), service


def test_processes_have_no_capability(vm: Machine) -> None:
    for service in vm.services:
        pid = vm.inspect(service)["State"]["Pid"]
        status = vm.sh(f"cat /proc/{pid}/status")
        assert re.search(r"CapEff:\s*0+\n", status), (service, status)
        assert re.search(r"NoNewPrivs:\s*1\n", status), service


def test_nothing_listens_beyond_loopback_and_the_docker_network(vm: Machine) -> None:
    listening = [socket for socket in vm.host.socket.get_listening_sockets() if socket.startswith("tcp://")]
    assert vm.host.socket("tcp://127.0.0.1:9090").is_listening
    # Port 22 is the administrator's.
    allowed = re.compile(r"tcp://(127\.|::1:|172\.29\.238\.1:|.*:22$)")
    assert not [socket for socket in listening if not allowed.match(socket)], vm.sh("ss -ltnp")


def test_prometheus_runs_the_config_of_its_file(vm: Machine) -> None:
    running = yaml.safe_load(vm.get("http://127.0.0.1:9090/api/v1/status/config")["data"]["yaml"])
    written = yaml.safe_load(vm.sh("cat /etc/vantage/prometheus/prometheus.yml"))
    assert [job["job_name"] for job in running["scrape_configs"]] == [
        job["job_name"] for job in written["scrape_configs"]
    ]
    assert running["global"]["scrape_interval"] == written["global"]["scrape_interval"]
    rules = vm.get("http://127.0.0.1:9090/api/v1/rules")["data"]["groups"]
    assert "Watchdog" in {rule["name"] for group in rules for rule in group["rules"]}


def test_loki_runs_the_config_of_its_file(vm: Machine) -> None:
    running = yaml.safe_load(vm.sh("curl -fsS http://127.0.0.1:3100/config"))
    written = yaml.safe_load(vm.sh("cat /etc/vantage/loki/loki.yml"))
    assert running["limits_config"]["ingestion_rate_mb"] == written["limits_config"]["ingestion_rate_mb"]
    assert running["ingester"]["wal"]["replay_memory_ceiling"] == written["ingester"]["wal"]["replay_memory_ceiling"]


def test_alertmanager_runs_the_config_of_its_file(vm: Machine) -> None:
    running = yaml.safe_load(vm.get("http://127.0.0.1:9093/api/v2/status")["config"]["original"])
    written = yaml.safe_load(vm.sh("cat /etc/vantage/alertmanager/alertmanager.yml"))
    assert running["route"]["receiver"] == written["route"]["receiver"]
    assert [r["name"] for r in running["receivers"]] == [r["name"] for r in written["receivers"]]


def test_every_target_is_up(vm: Machine) -> None:
    def down() -> list[tuple[str, str, str]]:
        targets = vm.get("http://127.0.0.1:9090/api/v1/targets")["data"]["activeTargets"]
        assert len(targets) > 8
        return [(t["scrapePool"], t["scrapeUrl"], t["lastError"]) for t in targets if t["health"] != "up"]

    # A service that a test before stopped is known to be back after the next scrape, 15 s at most.
    wait(lambda: not down(), 30, lambda: str(down()))


def test_files_say_that_ansible_manages_them(vm: Machine) -> None:
    files = vm.sh("find /etc/vantage -name '*.yml'; ls /etc/systemd/system/vantage-*.service").split()
    assert {path.split("/")[3] for path in files} >= EXPECTED - {"node-exporter", "storefront", "warehouse"}
    assert any("/rules/" in path for path in files), files
    assert len(files) > len(vm.services)
    assert set(vm.sh(f"grep --files-with-matches 'Ansible managed' {' '.join(files)}").split()) == set(files)


def test_secret_is_in_its_own_file_alone(vm: Machine) -> None:
    file = vm.host.file("/etc/vantage/secrets/alertmanager/trial_webhook_url")
    assert PLANTED in file.content_string, "the scenario no longer plants it"
    assert (file.mode, file.uid, file.gid) == (0o440, 0, 10008)
    for command in (
        "cat /etc/vantage/alertmanager/alertmanager.yml; curl -s http://127.0.0.1:9093/api/v2/status",
        "docker inspect $(docker ps --quiet)",
        "docker image inspect $(docker image ls --quiet)",
        "ps axww -o args",
        "journalctl --no-pager --boot",
        # World-readable files.
        "find /etc /run /var/lib/vantage /usr/local /tmp /root -xdev -type f -perm -004 -size -1M "
        f"-exec grep --text --only-matching --with-filename {PLANTED} {{}} + 2>/dev/null; true",
    ):
        # The process list and the journal may have the grep above.
        lines = [line for line in vm.sh(command).splitlines() if PLANTED in line and "grep" not in line]
        assert not lines, f"{command}: {lines[:3]}"


def test_generated_secrets_are_readable_by_their_service_alone(vm: Machine) -> None:
    if "grafana" not in vm.services:
        pytest.skip("Grafana's image is not there")
    file = vm.host.file("/etc/vantage/secrets/grafana/admin_password")
    assert (file.mode, file.uid) == (0o400, 472)
    password = file.content_string.strip()
    assert len(password) >= 20
    assert password not in vm.sh("docker inspect vantage-grafana; journalctl --no-pager --boot; ps axww -o args")


def test_all_containers_together_stay_below_800_mib_of_memory(vm: Machine) -> None:
    used = {}
    for line in vm.sh("docker stats --no-stream --format '{{.Name}} {{.MemUsage}}'").splitlines():
        name, number, unit = re.match(r"(\S+) ([\d.]+)(\w+) /", line).groups()  # type: ignore[union-attr]
        used[name.removeprefix("vantage-")] = float(number) * {"B": 2**-20, "KiB": 2**-10, "MiB": 1, "GiB": 1024}[unit]
    assert set(used) == set(vm.services)
    assert sum(used.values()) < (MEMORY_MIB if "grafana" in used else MEMORY_MIB - GRAFANA_MIB), used


def test_no_service_can_read_the_secrets_of_another(vm: Machine) -> None:
    users = {service: vm.inspect(service)["Config"]["User"].split(":") for service in vm.services}
    # Root in its container has no capability and no mount with secrets in it.
    others = {service: ids for service, ids in users.items() if ids[0] != "0"}
    owners = vm.sh("ls /etc/vantage/secrets").split()
    assert "alertmanager" in owners
    for owner in owners:
        for service, (uid, gid) in others.items():
            if service == owner:
                continue
            seen = vm.try_sh(
                f"setpriv --reuid={uid} --regid={gid} --clear-groups sh -c 'cat /etc/vantage/secrets/{owner}/*' 2>/dev/null"
            )
            assert not seen, f"{service} ({uid}:{gid}) reads the secrets of {owner}"
