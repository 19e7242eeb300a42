"""The models' commands: an operator goes back to an earlier candidate."""

import click

from operations.cli.group import cli


@cli.command()
@click.argument("version")
@click.option("--reason", required=True, help="Why, for those who come after you.")
@click.option("--by", help="Who wants it; by default your name on this machine.")
def rollback(version: str, reason: str, by: str | None) -> None:
    """Make bins get candidate VERSION again.

    Publishing the same or an older training does not undo it. The next newer training does.
    """
    from export import roll_back
    from operations.person import present_person
    from trashnet.settings import load_settings
    from trashnet.store import open_store

    record = roll_back(open_store(load_settings()), version, by=by or present_person(), reason=reason)
    click.echo(f"bins get candidate {record.version} instead of {record.previous}: {record.reason}")
