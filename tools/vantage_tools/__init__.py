"""What runs on the developer's machine: one command, `vantage`, with a subcommand for each task."""
