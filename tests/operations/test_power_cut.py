"""The power-cut test: at random moments of a turn every process of the embedded stack is killed at once.

A turn is ingest, request, collect and grow; a long one goes on with retrain and publish, on a small dataset
and for one epoch. Three turns in ten cuts are made; one of them is long, because its ten stages take minutes.
Before the first of each kind comes an undisturbed turn with the same uploads and answers but for the
pictures, and the others must end as that one did.

So that every flow is hit, a turn is divided by the flow that its frames wait for or are in, which the ledger
tells. A cut lies at a random moment of such a part, which took so long in the undisturbed turn; cuts of the
same flow in one turn have equal shares of that time. With PostgreSQL behind ledger and Prefect its server is
killed as well, and is started again before the stack.

``TRASHNET_POWER_CUTS`` is the number of cuts (10 unless set; the release is tested with 30), and
``TRASHNET_POWER_CUT_SEED`` draws their moments.
"""

import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.support.postgres import PostgresCluster
from tests.operations.flywheel import GOOD, Flywheel
from tests.operations.test_up import MINUTES
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

CUTS = int(os.environ.get("TRASHNET_POWER_CUTS", "10"))
SEED = int(os.environ.get("TRASHNET_POWER_CUT_SEED", "20261126"))
TURN_SECONDS = 30 * MINUTES  # without the time that the stack is down, in which a turn must end
PROGRESS_SECONDS = 2 * MINUTES  # from the stack's being up until the wheel turns
POLL_SECONDS = 0.5
FLOWS = ("ingest", "request-labels", "collect-labels", "grow", "retrain", "publish")  # in order
SHORT = FLOWS[:-2]
# During which flows the power is cut in a turn, and whether it is a long one. Then from the first on again.
PLAN: tuple[tuple[bool, tuple[str, ...]], ...] = (
    (False, ("ingest", "request-labels", "grow")),
    (False, ("request-labels", "collect-labels", "grow")),
    (True, ("ingest", "retrain", "retrain", "publish")),
)


@dataclass
class Cut:
    """A power cut ``after`` so many seconds from the flow's beginning, and what was seen then."""

    flow: str
    after: float
    running: list[str] = field(default_factory=list)
    start_seconds: float = 0.0
    moved_after: float = 0.0


@dataclass
class Clock:
    """The seconds of a turn without those of power cuts, and when the part of each flow began."""

    began: float = field(default_factory=time.monotonic)
    beginnings: dict[str, float] = field(default_factory=dict)

    @property
    def now(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self.began

    def note(self, flow: str) -> None:
        """Note that the turn has come to this flow, and so past those before it."""
        for begun in FLOWS[: FLOWS.index(flow) + 1]:
            self.beginnings.setdefault(begun, self.now)

    def due(self, cut: Cut) -> float:
        """When the power is cut: no later than the next flow begins, should this one take less time today."""
        following = FLOWS[FLOWS.index(cut.flow) + 1 :]
        soonest = min((self.beginnings.get(flow, math.inf) for flow in following), default=math.inf)
        return min(self.beginnings.get(cut.flow, math.inf) + cut.after, soonest)

    def seconds(self, flow: str) -> float:
        """From the beginning of a flow to that of the next, or until now."""
        later = [self.beginnings[name] for name in FLOWS[FLOWS.index(flow) + 1 :] if name in self.beginnings]
        return min(later, default=self.now) - self.beginnings[flow]


@pytest.fixture(params=["sqlite", "postgresql"])
def flywheel(request: pytest.FixtureRequest, tmp_path: Path, taxonomy: Taxonomy) -> Iterator[Flywheel]:
    """The stack, which is up and grows its dataset as soon as a turn's frames are labelled."""
    is_server = request.param == "postgresql"
    postgres = PostgresCluster.create(tmp_path / "postgres") if is_server else None
    made = Flywheel(tmp_path / "repository", taxonomy, postgres)
    try:
        made.create()
        made.up()
        made.open()
        yield made
    finally:
        made.close()


def turn_once(flywheel: Flywheel, turn: int, *, trained: bool, cuts: list[Cut]) -> Clock:
    """Turn the wheel once, with these power cuts."""
    flywheel.retrain_after(trained=trained)
    clock, to_come, is_done = Clock(), list(cuts), False
    flywheel.upload(turn)
    while to_come or not is_done:
        assert clock.now < TURN_SECONDS, (flywheel.progress(), flywheel.active_flows())
        clock.note(FLOWS[-1] if is_done else flywheel.flow_of(turn))
        due = clock.due(to_come[0]) if to_come else math.inf
        time.sleep(max(0.0, min(POLL_SECONDS, due - clock.now)))
        if clock.now >= due:
            cut_once(flywheel, turn, to_come.pop(0), clock, trained=trained)
        with suppress(httpx.HTTPError, UserError):
            flywheel.answer()
        is_done = flywheel.is_done(turn, trained=trained)
    return clock


def cut_once(flywheel: Flywheel, turn: int, cut: Cut, clock: Clock, *, trained: bool) -> None:
    """Kill everything, start the stack, and wait until the wheel turns."""
    cut.running, moment = flywheel.active_flows(), clock.now
    killed, began = flywheel.cut_power(), time.monotonic()
    up_at = flywheel.up()
    cut.start_seconds = up_at - began
    at_up = flywheel.progress()
    print(
        f"turn {turn}: {killed} processes killed {cut.after:.1f} s after {cut.flow} began, {moment:.1f} s "
        f"into the turn, {', '.join(cut.running) or 'no flow'} running; up after {cut.start_seconds:.0f} s",
        flush=True,
    )
    clock.began = up_at - moment
    while (now := flywheel.progress()) == at_up and not flywheel.is_done(turn, trained=trained):
        seconds = time.monotonic() - up_at
        assert seconds < PROGRESS_SECONDS, f"{at_up} for {seconds:.0f} s; {flywheel.active_flows()}"
        clock.note(flywheel.flow_of(turn))
        with suppress(httpx.HTTPError, UserError):
            flywheel.answer()
        time.sleep(POLL_SECONDS)
    cut.moved_after = time.monotonic() - up_at
    print(f"turn {turn}: the wheel turns {cut.moved_after:.1f} s after its being up: {now}", flush=True)


def check_undisturbed(ended: dict[str, Any], state: str) -> None:
    """What an undisturbed turn leaves, whose good frames are in this state."""
    assert ended["ledger"] == [
        ("broken", "quarantined"),
        *((f"good {number}", state) for number in range(GOOD)),
        ("re-encode", "duplicate"),
    ]
    assert len(ended["dataset"]) == GOOD
    assert ended["turns of the dataset"] == 1
    assert len(ended["quarantine"]) == 3  # the broken picture, its sidecar, and the re-encode
    models = ended["models"]
    assert (models["newest.json names the last"], models["published once"]) == (True, True)
    assert (models["without a tag at their commit"], models["of no candidate"]) == ([], [])


def plan_turns(cuts: int) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """The turns of :data:`PLAN`, again and again, until there are so many cuts.

    >>> [len(flows) for _, flows in plan_turns(12)]
    [3, 3, 4, 2]
    """
    for is_long, flows in cycle(PLAN):
        if cuts <= 0:
            return
        yield is_long, flows[:cuts]
        cuts -= len(flows)


def draw_cuts(rng: random.Random, flows: tuple[str, ...], took: Mapping[str, float]) -> list[Cut]:
    """A moment in each of these flows, which took so many seconds in the undisturbed turn."""
    return [
        Cut(flow, (flows[:number].count(flow) + rng.random()) / flows.count(flow) * took[flow])
        for number, flow in enumerate(flows)
    ]


def print_table(cuts: list[Cut]) -> None:
    """What was hit how often, and the longest times."""
    hit = Counter(flow.split()[0] for cut in cuts for flow in cut.running or ["none"])
    stages = Counter(stage for cut in cuts for flow in cut.running for stage in flow.split()[1:])
    print(f"{len(cuts)} cuts, of which so many hit")
    for name, times in [*sorted(hit.items()), *sorted(stages.items())]:
        print(f"  {times:3} {name}")
    print(f"longest start {max(cut.start_seconds for cut in cuts):.1f} s")
    print(f"longest time until the wheel turned {max(cut.moved_after for cut in cuts):.1f} s", flush=True)


@pytest.mark.slow
@pytest.mark.timeout((60 + 10 * CUTS) * MINUTES)
def test_a_power_cut_at_any_moment_of_a_turn_changes_nothing(flywheel: Flywheel) -> None:
    """Within 2 minutes of its being up the wheel turns on by itself, and the turn ends as one without it."""
    undisturbed, took = dict[bool, dict[str, Any]](), dict[str, float]()
    rng, done, turns = random.Random(SEED), list[Cut](), count()
    print(f"seed {SEED}", flush=True)
    for is_long, flows in plan_turns(CUTS):
        if is_long not in undisturbed:
            turn = next(turns)
            clock = turn_once(flywheel, turn, trained=is_long, cuts=[])
            undisturbed[is_long] = flywheel.ended(turn, trained=is_long)
            took = {flow: clock.seconds(flow) for flow in (FLOWS if is_long else SHORT)} | took
            print(f"undisturbed: {clock.now:.0f} s, {took}, {undisturbed[is_long]}", flush=True)
            check_undisturbed(undisturbed[is_long], "released" if is_long else "labelled")
        turn, cuts = next(turns), draw_cuts(rng, flows, took)
        turn_once(flywheel, turn, trained=is_long, cuts=cuts)
        done += cuts
        print_table(done)
        ended = flywheel.ended(turn, trained=is_long)
        assert ended == undisturbed[is_long], f"seed {SEED}, turn {turn}: {cuts}"
