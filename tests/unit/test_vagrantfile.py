"""The Vagrantfile parses, follows its settings, and names an invalid one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
VAGRANTFILE = PROJECT / "Vagrantfile"

needs_ruby = pytest.mark.skipif(shutil.which("ruby") is None, reason="ruby is not installed here")

# A stand-in for Vagrant: it runs the Vagrantfile and prints each value that is set, one a line, and what `up` refuses.
STAND_IN = r"""
class Node
  def initialize(path) = @path = path
  def method_missing(name, *given, **named, &block)
    text = given.map(&:inspect) + named.map { |key, value| "#{key}: #{value.inspect}" }
    path = [@path, name.to_s.delete_suffix("=")].compact.join(".")
    puts "#{path} #{text.join(" ")}" unless text.empty?
    node = Node.new(path)
    name == :ruby ? $trigger = block : block&.call(node, node)
    name.end_with?("=") ? given.first : node
  end
  def respond_to_missing?(*) = true
end
module Vagrant
  module Errors
    class VagrantError < StandardError
      def self.error_message(text) = define_method(:message) { text }
    end
  end
  def self.require_version(*) = nil
  def self.configure(_version) = yield(Node.new(nil))
end
load ARGV.fetch(0)
begin
  $trigger.call(nil, Struct.new(:id, :box, :state).new(nil, nil, Struct.new(:id).new(:not_created)))
rescue Vagrant::Errors::VagrantError => error
  puts "refused: #{error.message.inspect}"
end
"""


def environment(cache: Path, **settings: str) -> dict[str, str]:
    """Return this process's environment with `settings` instead of the developer's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VANTAGE_", "VAGRANT_"))}
    return {**kept, "VANTAGE_CACHE": str(cache), **settings}


def run_vagrantfile(cache: Path, file: Path = VAGRANTFILE, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the Vagrantfile against the stand-in."""
    return subprocess.run(
        [shutil.which("ruby") or "ruby", "-w", "-e", STAND_IN, str(file)],
        env=environment(cache, **settings),
        capture_output=True,
        text=True,
        check=False,
    )


def configured(cache: Path, **settings: str) -> str:
    """Return what the Vagrantfile sets."""
    answer = run_vagrantfile(cache, **settings)
    assert answer.returncode == 0, answer.stderr
    assert "warning" not in answer.stderr
    return answer.stdout


@needs_ruby
def test_the_box_that_was_built_is_used_with_its_version(tmp_path: Path) -> None:
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    (boxes / "debian-13.json").write_text('{"versions": [{"version": "20260101.120000"}]}')
    text = configured(tmp_path)
    assert f'vm.box_url "file://{boxes}/debian-13.json"' in text
    assert 'vm.box_version "20260101.120000"' in text


@needs_ruby
def test_another_box_replaces_the_one_that_was_built(tmp_path: Path) -> None:
    text = configured(tmp_path, VANTAGE_BOX="mine", VANTAGE_BOX_URL="file:///mine.box")
    assert 'vm.box "mine"' in text
    assert 'vm.box_url "file:///mine.box"' in text
    assert "box_version" not in text


@needs_ruby
def test_a_missing_box_is_named_before_anything_starts(tmp_path: Path) -> None:
    refused = [line for line in configured(tmp_path).splitlines() if line.startswith("refused")]
    assert len(refused) == 1
    assert f"{tmp_path}/boxes" in refused[0]
    assert "make box" in refused[0]


@needs_ruby
def test_port_in_use_is_reported_before_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = configured(tmp_path, VANTAGE_BOX="mine", VANTAGE_PORTS=f"{port}:3000")
    assert f": {port}." in next(line for line in text.splitlines() if line.startswith("refused"))
    assert "refused" not in configured(tmp_path, VANTAGE_BOX="mine", VANTAGE_PORTS=f"{port}:3000")


@needs_ruby
def test_ports_are_bound_to_loopback_alone(tmp_path: Path) -> None:
    text = configured(tmp_path, VANTAGE_PORTS="3000 18000:8000")
    lines = [line for line in text.splitlines() if "forwarded_port" in line]
    assert len(lines) == 2
    assert all('host_ip: "127.0.0.1"' in line for line in lines)
    assert "guest: 8000 host: 18000" in lines[1]


@needs_ruby
def test_emulation_uses_a_generic_processor(tmp_path: Path) -> None:
    text = configured(tmp_path, VANTAGE_LIBVIRT_DRIVER="qemu")
    assert 'driver "qemu"' in text
    assert 'cpu_mode "custom"' in text


@needs_ruby
def test_the_saved_driver_is_used(tmp_path: Path) -> None:
    (tmp_path / "libvirt-driver").write_text("qemu\n")
    assert 'driver "qemu"' in configured(tmp_path)
    assert 'driver "kvm"' in configured(tmp_path, VANTAGE_LIBVIRT_DRIVER="kvm")


@needs_ruby
def test_extra_variables_reach_ansible(tmp_path: Path) -> None:
    text = configured(tmp_path, VANTAGE_EXTRA_VARS="@images.yml a=1", VANTAGE_ANSIBLE="host")
    assert '"--extra-vars", "@images.yml", "--extra-vars", "a=1"' in text


@needs_ruby
@pytest.mark.parametrize(
    ("name", "value"),
    [("MEMORY", "4g"), ("CPUS", "two"), ("PORTS", "eight"), ("LIBVIRT_DRIVER", "xen"), ("ANSIBLE", "cloud")],
)
def test_a_wrong_setting_is_named(tmp_path: Path, name: str, value: str) -> None:
    answer = run_vagrantfile(tmp_path, **{f"VANTAGE_{name}": value})
    assert answer.returncode != 0
    assert f"VANTAGE_{name}" in answer.stderr
    assert value in answer.stderr


@needs_ruby
def test_with_ansible_on_the_host_no_folder_is_shared(tmp_path: Path) -> None:
    text = configured(tmp_path, VANTAGE_ANSIBLE="host")
    assert 'vm.provision "ansible"' in text
    assert 'vm.provision "shell"' not in text
    assert 'vm.synced_folder "." "/vagrant" disabled: true' in text


@needs_ruby
def test_without_ansible_on_the_host_the_vm_provisions_itself(tmp_path: Path) -> None:
    """A checkout without a venv, on a machine that has no ansible-playbook."""
    shutil.copy(VAGRANTFILE, tmp_path / "Vagrantfile")
    answer = run_vagrantfile(tmp_path, tmp_path / "Vagrantfile", PATH="/nonexistent", VANTAGE_EXTRA_VARS="a=1 @my.yml")
    assert answer.returncode == 0, answer.stderr
    text = answer.stdout
    assert 'vm.provision "ansible"' not in text
    (shell,) = [line for line in text.splitlines() if 'vm.provision "shell"' in line]
    assert 'path: "tools/machines/provision.py"' in shell
    for name, value in (
        ("PROJECT", "/vagrant"),
        ("INVENTORY", "inventory/vagrant/hosts.yml"),
        ("EXTRA_VARS", "a=1 @my.yml"),
    ):
        assert re.search(rf'"VANTAGE_{name}"\s*=>\s*"{value}"', shell), shell
    copies = [line for line in text.splitlines() if 'vm.synced_folder "." "/vagrant" type: "rsync"' in line]
    assert copies
    for copy in copies:
        assert '"--archive"' in copy
        assert "--copy-links" not in copy, "playbooks/roles must stay a link"


@needs_ruby
def test_images_for_a_vm_that_provisions_itself_are_shared(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    answer = run_vagrantfile(tmp_path, VANTAGE_ANSIBLE="guest", VANTAGE_IMAGES=str(images))
    assert answer.returncode != 0
    assert f"VANTAGE_IMAGES={images}" in answer.stderr
    assert "index.json" in answer.stderr
    (images / "index.json").write_text("{}")
    text = configured(tmp_path, VANTAGE_ANSIBLE="guest", VANTAGE_IMAGES=str(images))
    assert f'vm.synced_folder "{images}" "/vantage-images"' in text
    assert re.search(r'"VANTAGE_IMAGES"\s*=>\s*"/vantage-images"', text)
    # Where the folder is copied, the archives of system containers stay: they are for this machine.
    assert re.search(r'"/vantage-images" type: "rsync".*"system\*\.tar\.gz"', text)


@needs_ruby
def test_a_file_outside_the_shared_folder_is_refused(tmp_path: Path) -> None:
    answer = run_vagrantfile(tmp_path, VANTAGE_ANSIBLE="guest", VANTAGE_EXTRA_VARS="@/home/me/my.yml")
    assert answer.returncode != 0
    assert "/home/me/my.yml" in answer.stderr
    assert run_vagrantfile(tmp_path, VANTAGE_ANSIBLE="host", VANTAGE_EXTRA_VARS="@/home/me/my.yml").returncode == 0
