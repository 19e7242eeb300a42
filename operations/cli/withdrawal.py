"""The commands that make the flywheel forget frames."""

from datetime import UTC, datetime

import click

from operations.cli.group import cli
from trashnet.errors import UserError


@cli.command("withdraw")
@click.option("--frame", "frames", multiple=True, metavar="SHA256", help="A frame; may be given repeatedly.")
@click.option("--bin", "bin_id", metavar="ID", help="All frames of a bin.")
@click.option(
    "--before", type=click.DateTime(["%Y-%m-%d"]), help="All frames captured before this day began (UTC)."
)
@click.option("--reason", help="Why, for those who come after you.")
@click.option("--by", help="Who asks for it; by default your name on this machine.")
@click.option("--dry-run", is_flag=True, help="Only count what would be withdrawn.")
@click.option("--yes", is_flag=True, help="Do not ask before withdrawing.")
@click.option("--finish", is_flag=True, help="Only finish a withdrawal that died on its way.")
def withdraw_(
    frames: tuple[str, ...],
    bin_id: str | None,
    before: datetime | None,
    reason: str | None,
    by: str | None,
    dry_run: bool,
    yes: bool,
    finish: bool,
) -> None:
    """Forget frames: out of the dataset, the store and Label Studio. There is no way back.

    Their rows stay in the ledger with the reason. An upload of the same bytes is refused from then on. The
    report names the candidates that had learnt from them.
    """
    from flows.context import open_context
    from operations.person import present_person
    from operations.withdrawal import Selection, find, finish_all, withdraw

    chosen = sum((bool(frames), bin_id is not None, before is not None))
    if finish == bool(chosen) or chosen > 1:
        raise UserError("withdraw takes one of --frame, --bin and --before, or --finish alone")
    if chosen and not dry_run and not (reason or "").strip():
        raise UserError("a withdrawal says why: give --reason")
    with open_context() as context:
        if not dry_run:
            for report in finish_all(context):
                click.echo(f"finished the withdrawal of {report.withdrawal.asked_at:%Y-%m-%d %H:%M}:")
                click.echo(report.text())
        if finish:
            return
        moment = before.replace(tzinfo=UTC) if before else None
        found = find(context.store, context.ledger, Selection(frames, bin_id, moment))
        click.echo(found.summary())
        if dry_run:
            return
        if not yes:
            click.confirm("Withdraw them? This cannot be undone.", abort=True)
        report = withdraw(context, found, reason=reason or "", by=by or present_person())
        click.echo(report.text())


@cli.command("compact")
@click.option("--purge", is_flag=True, help="Also remove the older files' bytes from DVC's cache and remote.")
@click.option("--yes", is_flag=True, help="Do not ask before purging.")
def compact_(purge: bool, yes: bool) -> None:
    """Rewrite the dataset's files without withdrawn frames, as a new version.

    Names where DVC keeps the older files. Without those, the older versions can no longer be pulled.
    """
    from dataset.withdrawal import compact
    from flows.context import open_context
    from operations.compaction import old_files, training_copies
    from operations.compaction import purge as purge_files

    with open_context() as context:
        made = compact(context.clone, context.taxonomy)
        if made is None:
            click.echo("no file of the dataset holds a withdrawn frame")
            return
        files = old_files(context.clone, made)
        click.echo(f"dataset {made.version}: {len(files)} files rewritten without {made.frames} frames")
        for file in files:
            click.echo(f"older file of turn {file.turn}: {file.cache} and {context.store.bucket}/{file.key}")
        for tag, path, md5 in training_copies(context.clone):
            click.echo(f"{tag} may hold copies of them: {path}, in DVC as {md5}")
        if purge:
            if not yes:
                click.confirm("Remove the older files? Their versions cannot be pulled any more.", abort=True)
            purge_files(context.store, files)
            click.echo(f"{len(files)} older files removed")
