"""Growth: collected labels become a turn of the log, and so a version of the dataset.

A turn is planned in the ledger first and marked as done there last: its annotations are fixed by the plan.
Between the two come the log, ``dvc add``, ``dvc push``, commit and tag. What a process that died left of
these is thrown away and done again; the log takes no frame and no label twice, so it ends in the same turn.

A frame that cannot grow is set aside with its reason (``dataset.admission``); the turn goes on without it.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from dataset.admission import (
    UnusableFrame,
    find_faults,
    readmit_frames,
    set_aside,
    stored_frame,
    verified_jpeg,
)
from dataset.append import append_to, open_to_append
from dataset.frame import Frame, Labels, Split
from dataset.gate_set import step_gate_set
from dataset.log import Log
from dataset.params import GrowthParams
from dataset.splits.assignment import assign_groups_and_splits
from dataset.splits.groups import Origin
from dataset.splits.params import SplitParams
from dataset.summary import describe_shortfall
from dataset.turn_files import COMPACTED, WITHDRAWN, name_of_turn
from dataset.versions import DATA, commit_version
from trashnet.boxes import stack
from trashnet.choice import HELD_OUT
from trashnet.clone import Clone
from trashnet.due import Due
from trashnet.ledger import FrameLabels, Ledger, TurnRow
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

logger = logging.getLogger(__name__)

TURN_NAME = "bins"  # in the names of turns that hold bins' frames


@dataclass(frozen=True, slots=True)
class GrownTurn:
    """One finished turn: its name in the log, the dataset's version (a git tag) and commit, and how much it
    brought.

    ``set_aside``: labelled frames of its plan that could not grow. ``gate``: the version of the gate set that
    the turn made, if it did. ``shortfall``: a sentence where val or test has too few frames.
    """

    turn: str
    version: str
    commit: str
    frames: int
    boxes: int
    set_aside: int = 0
    gate: str | None = None
    shortfall: str | None = None


def grow_due(ledger: Ledger, params: GrowthParams, at_least: int | None = None) -> Due:
    """Whether there is a turn to be made: enough labelled frames, or a turn that was left unfinished.

    Args:
        ledger: Knows the labels that no turn holds yet.
        params: ``min_frames`` says how many labelled frames are enough.
        at_least: How many are enough this time, instead.
    """
    if ledger.unfinished_turn() is not None:
        return Due(True, "a turn that was left unfinished")
    labelled, wanted = ledger.count_labels_to_grow(), at_least or params.min_frames
    return Due(labelled >= wanted, f"{labelled} labelled frames, {wanted} are enough for a turn")


def grow(
    clone: Clone,
    store: ObjectStore,
    ledger: Ledger,
    taxonomy: Taxonomy,
    params: GrowthParams,
    split: SplitParams,
    at_least: int | None = None,
) -> Iterator[GrownTurn]:
    """Make turns of what has been collected, each a dataset version, until none is due; yields each one.

    A turn that was left unfinished is finished whatever its size. ``at_least``: see :func:`grow_due`. Raises
    :class:`trashnet.errors.UserError` if a step fails; the next call goes on there.
    """
    readmit_frames(ledger, store, taxonomy, params.recheck_frames)
    while grow_due(ledger, params, at_least):
        if (grown := grow_turn(clone, store, ledger, taxonomy, params, split)) is None:
            return
        yield grown


def grow_turn(
    clone: Clone,
    store: ObjectStore,
    ledger: Ledger,
    taxonomy: Taxonomy,
    params: GrowthParams,
    split: SplitParams,
) -> GrownTurn | None:
    """Make one turn of what has been collected, however little; ``None`` if there was nothing.

    A turn that an earlier run left unfinished is finished first. Raises
    :class:`trashnet.errors.UserError` if a step fails; the next call repeats it."""
    with clone.exclusive_lock():
        plan = ledger.unfinished_turn()
        if plan is None:
            readmit_frames(ledger, store, taxonomy, params.recheck_frames)
            plan = _plan_turn(ledger, params.max_frames)
        if plan is None:
            return None
        clone.restore()
        planned = ledger.labels_to_grow(plan.digest)
        turn, labels = _append_turn(clone, store, ledger, plan.digest, planned, taxonomy, split)
        if turn is None:  # every annotation of the plan was changed since, or every frame was set aside
            ledger.finish_turn(plan.digest, turn=None, version=None)
            return None
        with open_to_append(clone.path / DATA, taxonomy) as log:
            gate, shortfall = step_gate_set(log, params), describe_shortfall(log, split)
        if shortfall is not None:
            logger.warning("turn %s: %s", turn, shortfall)
        boxes = _count_boxes(labels)
        summary = f"{len(labels)} labelled frames from the bins, {boxes} boxes"
        version = commit_version(
            clone, turn, "; ".join(filter(None, [summary, gate and f"gate set {gate}", shortfall]))
        )
        unlabelled = [frame.sha256 for frame in labels if frame.newest is None]
        size = (len(labels), boxes)
        ledger.finish_turn(plan.digest, turn=turn, version=version, unlabelled=unlabelled, size=size)
        commit = clone.head()
    aside = len(planned) - len(labels)
    return GrownTurn(turn, version, commit, len(labels), boxes, aside, gate, shortfall)


def _count_boxes(labels: Sequence[FrameLabels]) -> int:
    return sum(len(frame.newest.boxes) for frame in labels if frame.newest is not None)


def _plan_turn(ledger: Ledger, max_frames: int) -> TurnRow | None:
    """Write down which annotations the next turn is made of."""
    labels = ledger.labels_to_grow()[:max_frames]
    if not labels:
        return None
    contents = [
        [
            frame.sha256,
            frame.keys,
            frame.newest and frame.newest.labelled_at.isoformat(),
            frame.newest and [box.to_json() for box in frame.newest.boxes],
        ]
        for frame in labels
    ]
    # The same labels may be planned again after they were changed and changed back: the count tells the plans
    # apart.
    identity = json.dumps([ledger.count_turns(), contents], sort_keys=True)
    plan = TurnRow(
        digest=hashlib.sha256(identity.encode()).hexdigest(),
        state="planned",
        started_at=datetime.now(UTC),
        frames=len(labels),
        boxes=_count_boxes(labels),
    )
    ledger.plan_turn(plan, [key for frame in labels for key in frame.keys])
    return plan


def _append_turn(
    clone: Clone,
    store: ObjectStore,
    ledger: Ledger,
    digest: str,
    labels: Sequence[FrameLabels],
    taxonomy: Taxonomy,
    split: SplitParams,
) -> tuple[str | None, Sequence[FrameLabels]]:
    """Append frames and labels to the clone's log, without those that cannot grow: they are set aside.

    Returns the turn that holds them, also if it was there before, and the labels that are in it.
    """
    with open_to_append(clone.path / DATA, taxonomy) as log:
        faults = find_faults(labels, log.row_of, ledger, None, taxonomy)
        while True:
            if faults:
                set_aside(ledger, digest, faults)
                labels = [frame for frame in labels if frame.sha256 not in faults]
            if not labels:
                return None, []
            try:
                by_frame = [(frame.sha256, _log_labels(frame, taxonomy)) for frame in labels]
                frames = _frames(log, store, ledger, by_frame, taxonomy, split)
                turn = append_to(log, TURN_NAME, frames, by_frame)
                old = [turn for turn in log.turns if name_of_turn(turn) not in (WITHDRAWN, COMPACTED)]
                return turn or (old[-1] if old else None), labels
            except UnusableFrame as fault:  # one is enough to look at all: most turns have none
                found = find_faults(labels, log.row_of, ledger, store, taxonomy)
                faults = {fault.sha256: fault.reason, **found}


def _log_labels(labels: FrameLabels, taxonomy: Taxonomy) -> Labels | None:
    if labels.newest is None:
        return None
    boxes = labels.newest.boxes
    return Labels(
        boxes=stack(boxes),
        class_ids=np.array([taxonomy.id_of[box.label] for box in boxes], np.int64),
        crowd=np.zeros(len(boxes), bool),
        labelled_at=labels.newest.labelled_at,
        annotator=labels.newest.annotator,
        prelabelled=labels.newest.prelabelled,
    )


def _frames(
    log: Log,
    store: ObjectStore,
    ledger: Ledger,
    labels: Sequence[tuple[str, Labels | None]],
    taxonomy: Taxonomy,
    split: SplitParams,
) -> Iterator[Frame]:
    """The frames that the log does not have, with the split of their groups; bytes are read one by one."""
    new = [
        (stored_frame(ledger, sha256), label)
        for sha256, label in labels
        if label is not None and sha256 not in log.row_of
    ]
    counts = np.zeros((len(new), len(taxonomy.classes)), np.int64)
    for index, (_, label) in enumerate(new):
        np.add.at(counts[index], label.class_ids - 1, 1)
    origins = [Origin(row.sha256, int(row.phash or "0", 16), row.bin_id, row.burst) for row, _ in new]
    choices = [row.choice for row, _ in new]
    # No training may see a bin that is held out. Of every bin, val and test are made of fair samples alone.
    held_out: list[Split | None] = ["test" if choice.origin == HELD_OUT else None for choice in choices]
    groups, splits = assign_groups_and_splits(
        log, origins, counts, split, wanted=held_out, may_judge=[choice.is_random for choice in choices]
    )
    for (row, _), group, to in zip(new, groups, splits, strict=True):
        yield Frame(
            sha256=row.sha256,
            jpeg=verified_jpeg(store, row),
            width=row.width or 0,
            height=row.height or 0,
            split=to,
            group=group,
            phash=int(row.phash or "0", 16),
            file_name=f"{row.sha256}.jpg",
            bin_id=row.bin_id,
            burst=row.burst,
            captured_at=row.captured_at,
            extra={"release": row.release} if row.release else {},
            upload_reason=row.upload_reason,
            selected_by=row.selected_by,
        )
