"""The VM of `make up`: a system container or Vagrant's, and what it needs of this machine.

`machine` has both kinds of VM and chooses one: `container` runs systemd in a container; for Vagrant, `box` builds a box
and `libvirt` starts libvirt. `ports` and `endpoints`: what is published where. `engine` starts Docker, `host_tools`
installs packages, `cli` has the subcommands.
"""
