"""The turning wheel's commands: the embedded stack, its status, the demo, what annotators agree on."""

import sys

import click

from operations.cli.group import cli


@cli.command()
@click.option("--detach", is_flag=True, help="Run in the background; `trashnet down` ends it.")
@click.option(
    "--flows", type=click.IntRange(min=1), default=4, show_default=True, help="How many flows run at once."
)
def up(detach: bool, flows: int) -> None:
    """Run the embedded stack: S3 server, Label Studio, Prefect, a worker and the event gateway, for this
    machine alone.
    """
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

    seen = collect_status()
    click.echo(seen.as_json() if as_json else format_status(seen))
    if not seen.ok:
        sys.exit(1)


@cli.command()
def setup() -> None:
    """Make a deployment ready to turn: bucket, ledger, clone, annotators' project, Prefect's deployments.

    Again changes nothing.
    """
    _prefect_of_the_stack()
    from operations.setup import set_up

    for done in set_up():
        click.echo(done)


@cli.command()
@click.option("--frames", default=12, show_default=True, help="That the simulated bins upload.")
def demo(frames: int) -> None:
    """Turn the wheel once on the stack that is up: simulated bins, a demo annotator, and everything real
    between them.
    """
    _prefect_of_the_stack()
    from flows.context import open_context
    from operations.demo import run_demo

    with open_context() as context:
        click.echo(run_demo(context, frames, click.echo))


@cli.command("agreement")
def agreement_() -> None:
    """Show how far people agree on frames that two of them labelled: boxes and labels, per class and pair of
    annotators.
    """
    from labeling import annotator_agreement
    from trashnet.ledger import open_ledger
    from trashnet.settings import load_settings

    ledger = open_ledger(load_settings().ledger_url)
    try:
        click.echo(annotator_agreement(ledger).table())
    finally:
        ledger.close()


def _prefect_of_the_stack() -> None:
    """Where the environment names no Prefect server, the embedded stack's is meant.

    Prefect reads this when it is imported.
    """
    import os

    from operations.stack.run_state import read_environment_file
    from trashnet.settings import STACK_ENVIRONMENT_FILE

    for name, value in read_environment_file(STACK_ENVIRONMENT_FILE).items():
        if name.startswith("PREFECT_"):
            os.environ.setdefault(name, value)
