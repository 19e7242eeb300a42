"""The command line: one verb of a room per command, imported when it runs so that ``--help`` is instant."""

from operations.cli import flywheel, models, pipeline, retention, withdrawal
from operations.cli.group import cli, main

__all__ = ["cli", "flywheel", "main", "models", "pipeline", "retention", "withdrawal"]
