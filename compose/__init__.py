"""docker-compose.yml for a laptop, rendered from the roles: what their tasks give a host's units, given to containers."""
