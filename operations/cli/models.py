"""The models' commands: a person decides which models are in use."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from operations.cli.group import cli
from trashnet.models import ROLES, Role

version_argument = click.argument("version")
role_option = click.option("--model", type=click.Choice(ROLES), help="Only this one; both unless given.")
reason_option = click.option("--reason", required=True, help="Why, for those who come after you.")
by_option = click.option("--by", help="Who wants it; by default your name on this machine.")


@cli.command()
@version_argument
@role_option
@reason_option
@by_option
def rollback(version: str, model: Role | None, reason: str, by: str | None) -> None:
    """Use the models of candidate VERSION again.

    The gate does not undo it with the candidate that was in use, or an older one. A later one that it lets
    through does.
    """
    from export import roll_back

    _decide(roll_back, version, model, reason, by)


@cli.command("override")
@version_argument
@role_option
@reason_option
@by_option
def override_(version: str, model: Role | None, reason: str, by: str | None) -> None:
    """Use the models of candidate VERSION whatever the gate says of it.

    The reason is kept, and stands in `trashnet status` for as long as they are in use.
    """
    from export import override

    _decide(override, version, model, reason, by)


def _decide(
    decide: Callable[..., Any], version: str, model: Role | None, reason: str, by: str | None
) -> None:
    from operations.person import present_person
    from trashnet.settings import load_settings
    from trashnet.store import open_store

    roles: Sequence[Role] = ROLES if model is None else (model,)
    for change in decide(
        open_store(load_settings()), version, roles, by=by or present_person(), reason=reason
    ):
        before = f" instead of {change.previous}" if change.previous else ""
        click.echo(f"the {change.role} is now that of candidate {change.version}{before}: {change.reason}")
