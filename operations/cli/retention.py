"""The command that removes what has been kept for long enough."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from operations.cli.group import cli

if TYPE_CHECKING:
    from trashnet.ledger import Removal


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
def retain(dry_run: bool) -> None:
    """Remove what section `retention` of params.yaml does not keep any longer.

    Objects of refused uploads in quarantine (their rows stay, with a note), transitions that explain nothing
    of frames that settled long ago, and files of this machine's DVC cache that no dataset version names. A
    flow does it every night. Nothing that a dataset version needs is ever removed.
    """
    from dataset import clean_cache
    from flows.context import open_context
    from ingest import remove_expired
    from trashnet.params import load_params
    from trashnet.retention import RetentionParams, describe_removals, thin_out_transitions

    params, now = load_params("retention", RetentionParams), datetime.now(UTC)
    done = "would be removed" if dry_run else "removed"
    count = 0

    def show(removed: "list[Removal]") -> None:
        nonlocal count
        count += len(removed)
        for line in describe_removals(removed):
            click.echo(f"{done}: {line}")

    with open_context() as context:
        store, ledger = context.store, context.ledger
        show(remove_expired(store, ledger, params, now, dry_run=dry_run))
        show(thin_out_transitions(ledger, params, now, dry_run=dry_run))
        show(clean_cache(context.clone, store, ledger, params, now, dry_run=dry_run))
    if not count:
        click.echo("nothing has been kept for longer than params.yaml says")
