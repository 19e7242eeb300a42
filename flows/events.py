"""The events that flows and the event gateway emit.

An event carries no data that a flow relies on. The commit of a dataset version is there to be checked: a
machine that cannot fetch it must not train something older in its place.
"""

from typing import Any

from prefect.events import emit_event

INBOX = "trashnet.inbox.arrived"  # uploads lie in the inbox
ACCEPTED = "trashnet.frames.accepted"  # new frames are in the ledger
ANSWERED = "trashnet.answers.changed"  # somebody saved an annotation
COLLECTED = "trashnet.answers.collected"  # answers are in the ledger
GROWN = "trashnet.dataset.grown"  # there is a new dataset version
TRAINED = "trashnet.models.trained"  # both models have scorecards
PUBLISHED = "trashnet.candidate.published"  # a candidate lies in the store

RESOURCE = {"prefect.resource.id": "trashnet.flywheel", "prefect.resource.name": "TrashNet Flywheel"}


def emit(event: str, **payload: Any) -> None:
    """Announce that there may be something to drain."""
    emit_event(event, resource=RESOURCE, payload=payload)
