"""The models' commands: a person decides which models are in use."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from operations.cli.group import cli
from trashnet.errors import UserError
from trashnet.files import atomic_write
from trashnet.models import ROLES, Role

if TYPE_CHECKING:
    from export import Candidate, Judgement
    from trashnet.store import ObjectStore

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


@cli.command("gate")
@click.argument("challenger")
@click.argument("champion", required=False)
def gate_(challenger: str, champion: str | None) -> None:
    """Judge candidate CHALLENGER against the models in use, and use what passes.

    With CHAMPION: only say what the gate would say if that candidate were in use. Exit status 1 if a model is
    blocked, 3 if one is held.
    """
    from export import compare_candidates, judge_candidate
    from flows.context import open_context

    with open_context() as context:
        candidate = _candidate(context.store, challenger)
        if champion is None:
            judgement = judge_candidate(context.store, candidate, context.criteria)
        else:
            rival = _candidate(context.store, champion)
            judgement = compare_candidates(context.store, candidate, rival, context.criteria)
    click.echo(judgement.markdown())
    sys.exit({"passes": 0, "blocks": 1, "holds": 3}[judgement.outcome])


@cli.command("credit")
@version_argument
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Save the page with pictures.")
def credit_(version: str, page: Path | None) -> None:
    """Show what candidate VERSION does better and worse, and whose labels are new there.

    As the gate measured it when it judged the candidate last.
    """
    from export import load_judgement_page
    from trashnet.settings import load_settings
    from trashnet.store import open_store

    store = open_store(load_settings())
    judgement = _judgement(store, version)
    click.echo(judgement.credit_markdown())
    if page is not None:
        with atomic_write(page) as temporary:
            temporary.write_bytes(load_judgement_page(store, judgement))
        click.echo(f"The page is in {page}")


@cli.command()
@click.argument("older")
@click.argument("newer")
def judgements(older: str, newer: str) -> None:
    """Print what the gate said of candidates OLDER and NEWER side by side.

    Refused where they were judged on different frames or labels: then the two say nothing about each other.
    """
    from export import compare_judgements
    from trashnet.settings import load_settings
    from trashnet.store import open_store

    store = open_store(load_settings())
    click.echo(compare_judgements(_judgement(store, older), _judgement(store, newer)))


def _candidate(store: "ObjectStore", version: str) -> "Candidate":
    from export import list_candidates, load_candidate

    candidate = load_candidate(store, version)
    if candidate is None:
        known = ", ".join(sorted(one.version for one in list_candidates(store))) or "none"
        raise UserError(f"{store}: there is no candidate {version}; there are: {known}")
    return candidate


def _judgement(store: "ObjectStore", version: str) -> "Judgement":
    from export import load_judgement

    judgement = load_judgement(store, _candidate(store, version).version)
    if judgement is None:
        raise UserError(f"candidate {version} was never judged; `trashnet gate {version}` does it now")
    return judgement


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
