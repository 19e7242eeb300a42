"""The flywheel's commands: the embedded stack, its backup, status, setup, the demo, annotators' agreement."""

import sys
from pathlib import Path

import click

from operations.cli.group import cli


@cli.command()
@click.option("--detach", is_flag=True, help="Run in the background; `trashnet down` stops it.")
@click.option(
    "--flows", type=click.IntRange(min=1), default=4, show_default=True, help="How many flows run at a time."
)
def up(detach: bool, flows: int) -> None:
    """Run the embedded stack on this machine: S3 server, Label Studio, Prefect, worker, event gateway."""
    from operations.stack.commands import up as run

    run(detach=detach, flows=flows)


@cli.command()
def down() -> None:
    """Stop the embedded stack, wherever it runs."""
    from operations.stack.commands import down as run

    run()


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def status(as_json: bool) -> None:
    """Show servers, queues, dataset, models and runs; exit 1 when something that should be up is down."""
    from operations.status import collect_status
    from operations.status.text import format_status

    collected = collect_status()
    click.echo(collected.as_json() if as_json else format_status(collected))
    if not collected.ok:
        sys.exit(1)


@cli.command()
def setup() -> None:
    """Set a deployment up: bucket, ledger, clone, annotators' project, Prefect's deployments.

    A second run changes nothing.
    """
    _use_prefect_of_the_stack()
    from operations.setup import set_up

    for line in set_up():
        click.echo(line)


@cli.command()
@click.option("--frames", default=12, show_default=True, help="How many frames the simulated bins upload.")
def demo(frames: int) -> None:
    """Turn the flywheel once on the stack that is up.

    Bins and annotator are simulated, everything between them is real.
    """
    _use_prefect_of_the_stack()
    from flows.context import open_context
    from operations.demo import run_demo

    with open_context() as context:
        click.echo(run_demo(context, frames, click.echo))


@cli.command("agreement")
def agreement_() -> None:
    """Show how far annotators agree on frames that two of them labelled, per class and pair of annotators."""
    from labeling import annotator_agreement
    from trashnet.ledger import open_ledger
    from trashnet.settings import load_settings

    ledger = open_ledger(load_settings().ledger_url)
    try:
        click.echo(annotator_agreement(ledger).table())
    finally:
        ledger.close()


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
def backup(folder: Path) -> None:
    """Back the embedded stack up to a new FOLDER, while it runs or not.

    Ledger, Label Studio, Prefect, the clone's history, the store's objects and the stack's credentials.
    """
    from operations.backup import back_up
    from operations.stack.run_state import StackPaths

    manifest = back_up(StackPaths(), folder)
    megabytes = sum(file.bytes for file in manifest.files.values()) / 1e6
    click.echo(f"{folder}: {len(manifest.files):,} files, {megabytes:,.1f} MB. It holds credentials.")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--replace", is_flag=True, help="Move a stack that is here aside first.")
def restore(folder: Path, replace: bool) -> None:
    """Bring the embedded stack back from the backup in FOLDER; `trashnet up` starts it."""
    from operations.backup import restore as run
    from operations.stack.run_state import StackPaths

    if aside := run(StackPaths(), folder, replace=replace):
        click.echo(f"The stack that was here is kept in {aside}.")
    click.echo("Restored. `trashnet up` starts it.")


def _use_prefect_of_the_stack() -> None:
    """Use the embedded stack's Prefect server if the environment names none.

    Call it before importing Prefect.
    """
    import os

    from operations.stack.run_state import read_environment_file
    from trashnet.settings import STACK_ENVIRONMENT_FILE

    for name, value in read_environment_file(STACK_ENVIRONMENT_FILE).items():
        if name.startswith("PREFECT_"):
            os.environ.setdefault(name, value)
