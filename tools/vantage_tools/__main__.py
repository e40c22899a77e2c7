"""Runs the command as `python -m vantage_tools`."""

from vantage_tools.cli import main

main()
