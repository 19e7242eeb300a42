"""The power-cut test: at a random moment of a turn every process of the embedded stack is killed at once.

A turn is ingest, request, collect and grow; every third one goes on with retrain and publish, on a small
dataset and for one epoch, because each takes minutes. Two undisturbed turns come first, one of each kind.
Every turn after them has the same uploads and answers but for the pictures, and one power cut; it must end
as the undisturbed one of its kind did.

``TRASHNET_POWER_CUTS`` is the number of cuts (3 unless set; the release is tested with 30), and
``TRASHNET_POWER_CUT_SEED`` says where they lie: the undisturbed turn of each kind is divided in as many equal
parts as there are cuts, and each part has one at a random moment. With PostgreSQL behind ledger and Prefect
its server is killed as well, and is started again before the stack.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.operations.flywheel import GOOD, Flywheel
from tests.operations.test_up import MINUTES
from tests.servers import PostgresCluster
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

CUTS = int(os.environ.get("TRASHNET_POWER_CUTS", "3"))
SEED = int(os.environ.get("TRASHNET_POWER_CUT_SEED", "20261126"))
CYCLE = 3  # turns whose frames make a retraining
TURN_SECONDS = 20 * MINUTES  # in which a turn must end, whatever happens
PROGRESS_SECONDS = 2 * MINUTES  # from the stack's being up until the wheel turns
POLL_SECONDS = 0.5


def is_long(turn: int) -> bool:
    """Whether this turn retrains: the first does, then every third."""
    return turn % CYCLE == 0


@dataclass
class Cut:
    """One power cut: when, what ran then, and how long it took until all was up and the wheel turned."""

    after: float
    flows: list[str] = field(default_factory=list)
    start_seconds: float = 0.0
    moved_after: float = 0.0


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


def turn_once(flywheel: Flywheel, turn: int, cut: Cut | None) -> float:
    """Turn the wheel once, with a power cut if there is one; how long it took without the cut."""
    flywheel.upload(turn)
    began, up_at, at_up = time.monotonic(), None, ()
    is_cut = cut is None
    while not (is_cut and flywheel.is_done(turn, trained=is_long(turn))):
        elapsed = time.monotonic() - began
        assert elapsed < TURN_SECONDS, flywheel.progress()
        if cut is not None and not is_cut and elapsed >= cut.after:
            is_cut, cut.flows = True, flywheel.active_flows()
            up_at = cut_once(flywheel, turn, cut)
            at_up = flywheel.progress()
            began += time.monotonic() - began - elapsed
        if cut is not None and up_at is not None:
            seconds = time.monotonic() - up_at
            if (now := flywheel.progress()) != at_up:
                cut.moved_after, up_at = seconds, None
                print(f"turn {turn}: the wheel turns {seconds:.1f} s after its being up: {now}", flush=True)
            else:
                assert seconds < PROGRESS_SECONDS, f"{at_up} for {seconds:.0f} s; {flywheel.active_flows()}"
        with suppress(httpx.HTTPError, UserError):
            flywheel.answer()
        until_cut = cut.after - (time.monotonic() - began) if cut is not None and not is_cut else POLL_SECONDS
        time.sleep(min(POLL_SECONDS, max(0.0, until_cut)))
    return time.monotonic() - began


def cut_once(flywheel: Flywheel, turn: int, cut: Cut) -> float:
    """Kill everything, and start the stack; the moment at which it is up."""
    count, began = flywheel.cut_power(), time.monotonic()
    up_at = flywheel.up()
    cut.start_seconds = up_at - began
    running = ", ".join(cut.flows) or "no flow"
    print(
        f"turn {turn}: {count} processes killed after {cut.after:.1f} s, while {running} ran; "
        f"up after {cut.start_seconds:.0f} s",
        flush=True,
    )
    return up_at


def draw_moments(rng: random.Random, count: int, seconds: float) -> list[float]:
    """One moment in each of ``count`` equal parts of a turn, in random order.

    >>> [int(moment) for moment in sorted(draw_moments(random.Random(1), 3, 30.0))]
    [1, 18, 27]
    """
    moments = [rng.uniform(part, part + 1) * seconds / count for part in range(count)]
    rng.shuffle(moments)
    return moments


def check_undisturbed(short: dict[str, Any], long: dict[str, Any]) -> None:
    """What an undisturbed turn of each kind leaves."""
    for ended, state in ((short, "labelled"), (long, "released")):
        assert ended["ledger"] == [
            ("broken", "quarantined"),
            *((f"good {number}", state) for number in range(GOOD)),
            ("re-encode", "duplicate"),
        ]
        assert len(ended["dataset"]) == GOOD
        assert ended["turns of the dataset"] == 1
        assert len(ended["quarantine"]) == 3  # the broken picture, its sidecar, and the re-encode
        assert ended["models"]["newest.json names the last"]
        assert ended["models"]["published once"]
        assert not ended["models"]["tagged at its commit"]
        assert not ended["models"]["of no candidate"]


def print_table(cuts: list[Cut], seconds: float) -> None:
    """What was hit how often, and the longest times."""
    hit = Counter(flow.split()[0] for cut in cuts for flow in cut.flows or ["none"])
    stages = Counter(stage for cut in cuts for flow in cut.flows for stage in flow.split()[1:])
    print(f"{len(cuts)} cuts in {seconds:.0f} s, with these flows under way:")
    for name, count in sorted(hit.items()) + sorted(stages.items()):
        print(f"  {count:3} {name}")
    print(f"longest start {max(cut.start_seconds for cut in cuts):.1f} s")
    print(f"longest time until the wheel turned {max(cut.moved_after for cut in cuts):.1f} s", flush=True)


@pytest.mark.slow
@pytest.mark.timeout((30 + 10 * CUTS) * MINUTES)
def test_a_power_cut_at_any_moment_of_a_turn_changes_nothing(flywheel: Flywheel) -> None:
    """Within 2 minutes of its being up the wheel turns on by itself, and the turn ends as one without it."""
    began, rng, undisturbed = time.monotonic(), random.Random(SEED), dict[bool, dict[str, Any]]()
    spans = dict[bool, float]()
    for turn in (0, 1):
        spans[is_long(turn)] = turn_once(flywheel, turn, None)
        undisturbed[is_long(turn)] = flywheel.ended(turn)
        print(f"undisturbed: {spans[is_long(turn)]:.0f} s, {undisturbed[is_long(turn)]}", flush=True)
        flywheel.retrain_every(CYCLE)
    check_undisturbed(undisturbed[False], undisturbed[True])
    turns = range(2, 2 + CUTS)
    moments = {
        long: draw_moments(rng, sum(is_long(turn) == long for turn in turns), spans[long])
        for long in (False, True)
    }
    print(f"seed {SEED}, power cuts after {moments} s", flush=True)
    cuts = list[Cut]()
    for turn in turns:
        cut = Cut(moments[is_long(turn)].pop())
        cuts.append(cut)
        turn_once(flywheel, turn, cut)
        assert flywheel.ended(turn) == undisturbed[is_long(turn)], f"seed {SEED}, cut after {cut.after:.1f} s"
    print_table(cuts, time.monotonic() - began)
