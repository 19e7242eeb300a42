"""The events that flows and the event gateway emit.

An event carries no data that a flow relies on. The commit of a dataset version is there to be checked: a
machine that cannot fetch it must not train something older in its place.
"""

import logging
import math
import time
from typing import Any, Literal

import httpx
from prefect.events import emit_event
from prefect.settings import get_current_settings

from flows.active_runs import count_runs, has_due_run
from flows.prefect_api import open_api

INBOX = "trashnet.inbox.arrived"  # uploads lie in the inbox
ACCEPTED = "trashnet.frames.accepted"  # new frames are in the ledger
ANSWERED = "trashnet.answers.changed"  # somebody saved an annotation
COLLECTED = "trashnet.answers.collected"  # answers are in the ledger
GROWN = "trashnet.dataset.grown"  # there is a new dataset version
TRAINED = "trashnet.models.trained"  # both models have scorecards
PUBLISHED = "trashnet.candidate.published"  # a candidate lies in the store
JUDGED = "trashnet.candidate.judged"  # the gate said whether its models are used

RESOURCE = {"prefect.resource.id": "trashnet.flywheel", "prefect.resource.name": "TrashNet Flywheel"}
# The deployment that an event starts a run of; prefect.yaml's triggers say the same. An event that names a
# commit is not here: a run that is due may have another commit, and would not do the work of this one.
LISTENERS = {
    INBOX: "ingest/ingest",
    ACCEPTED: "request-labels/request-labels",
    ANSWERED: "collect-labels/collect-labels",
    COLLECTED: "grow/grow",
    PUBLISHED: "gate/gate",
}
# Events whose listener looks again and again before it ends: while it runs, it needs no other run.
LINGERING = {INBOX}
COMING_SECONDS = 60.0  # from an event to the run that it starts; after that the event counts as lost

log = logging.getLogger("events")


def connect_to_prefect() -> httpx.Client:
    """The API of the Prefect server that this process uses."""
    settings = get_current_settings().api
    auth = settings.auth_string
    return open_api(settings.url or "", auth.get_secret_value() if auth else None)


class Announcements:
    """Whether an event is worth emitting, by the runs that are due and by what this process emitted.

    A run that is due looks at all there is when it starts, so another one would find nothing.
    """

    def __init__(self) -> None:
        """Nothing was emitted yet."""
        self._runs: dict[str, int] = {}  # event -> its listener's runs when it was last judged
        self._emitted: dict[str, tuple[float, int]] = {}  # event -> when, and the listener's runs then

    def judge(self, event: str) -> Literal["needed", "covered", "coming"]:
        """Whether the event is needed, covered by a run that is due, or should be judged again in a moment.

        That is so while the run that its last emission starts is still to come, or while one lingers.
        Raises :class:`httpx.HTTPError` if Prefect does not answer.
        """
        if (deployment := LISTENERS.get(event)) is None:
            return "needed"
        with connect_to_prefect() as api:
            if has_due_run(api, deployment):
                return "covered"
            if event in LINGERING and has_due_run(api, deployment, running_too=True):
                return "coming"
            self._runs[event] = count_runs(api, deployment)
        emitted_at, runs_then = self._emitted.get(event, (-math.inf, 0))
        is_recent = time.monotonic() - emitted_at < COMING_SECONDS
        return "coming" if is_recent and self._runs[event] <= runs_then else "needed"

    def note(self, event: str) -> None:
        """Remember that the event, which was judged as needed, has been emitted."""
        self._emitted[event] = time.monotonic(), self._runs.get(event, 0)


_announcements = Announcements()  # of this process, which is one flow run


def emit(event: str, **payload: Any) -> None:
    """Announce that there may be something to drain, unless a run that will drain it is due or coming."""
    try:
        verdict = _announcements.judge(event)
    except httpx.HTTPError as error:  # a run too many is better than one too few
        log.warning("emitting %s without knowing whether a run is due: %s", event, error)
        verdict = "needed"
    if verdict == "needed":
        emit_event(event, resource=RESOURCE, payload=payload)
        _announcements.note(event)
