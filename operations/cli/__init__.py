"""The command line: one verb of a room per command, imported when it runs so that ``--help`` is instant.

This is the one place under ``trashnet/`` that knows the rooms.
"""

from operations.cli import pipeline, wheel
from operations.cli.group import cli, main

__all__ = ["cli", "main", "pipeline", "wheel"]
