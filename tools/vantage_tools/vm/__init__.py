"""The VM of `make up`: a Vagrant VM or a system container, and what is done on it."""
