"""Collected labels become one turn of the log, and so a version of the dataset: log, ``dvc add``, ``dvc push``, commit, tag, ledger.

The ledger holds the plan: which annotations a turn is made of is written there first and marked as done last.
Everything between is thrown away and done again if it died on the way; the log takes no frame and no label
twice, so doing it again ends in the same turn.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from dataset.append import append_to, open_to_append
from dataset.frame import Frame, Labels
from dataset.log import Log
from dataset.params import GrowthParams
from dataset.splits.assignment import assign_groups_and_splits
from dataset.splits.groups import Origin
from dataset.splits.params import SplitParams
from trashnet.boxes import stack
from trashnet.clone import Clone
from trashnet.errors import UserError
from trashnet.ledger import FrameLabels, FrameRow, Ledger, TurnRow
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

DATA = "data"
NAME = "bins"  # what turns made of bins' frames are called


@dataclass(frozen=True, slots=True)
class Grown:
    """One finished turn: its name in the log, the dataset's version (a git tag), and what it brought."""

    turn: str
    version: str
    frames: int
    boxes: int


def grow(
    clone: Clone,
    store: ObjectStore,
    ledger: Ledger,
    taxonomy: Taxonomy,
    params: GrowthParams,
    split: SplitParams,
) -> Grown | None:
    """Make one turn of what has been collected and publish it as a dataset version; ``None`` if nothing was collected.

    A turn that an earlier run left unfinished is finished first. Raises :class:`UserError` if a step fails;
    the next run repairs it.
    """
    with clone.alone():
        plan = ledger.unfinished_turn() or _plan(ledger, params.max_frames)
        if plan is None:
            return None
        clone.restore()
        answers = ledger.labels_to_grow(plan.digest)
        turn = _append(clone, store, ledger, answers, taxonomy, split)
        if turn is None:
            ledger.finish_turn(
                plan.digest, turn=None, version=None
            )  # every answer of the plan was changed since: they are planned anew
            return None
        version = f"data-{turn.split('-')[0]}"
        clone.dvc("add", DATA)
        clone.dvc("push", f"{DATA}.dvc")  # before the commit: a version never names data that nobody can pull
        boxes = sum(len(answer.newest.boxes) for answer in answers)
        clone.commit(
            f"Dataset {version}: {len(answers)} labelled frames from the bins, {boxes} boxes", f"{DATA}.dvc"
        )
        clone.tag(version)
        clone.push()
        ledger.finish_turn(plan.digest, turn=turn, version=version)
    return Grown(turn, version, len(answers), boxes)


def _plan(ledger: Ledger, most: int) -> TurnRow | None:
    """Write down which annotations the next turn is made of."""
    answers = ledger.labels_to_grow()[:most]
    if not answers:
        return None
    said = [
        [answer.newest.sha256, answer.newest.labelled_at.isoformat(), [box.to_json() for box in answer.newest.boxes]]
        for answer in answers
    ]
    plan = TurnRow(
        digest=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        state="planned",
        started_at=datetime.now(UTC),
        frames=len(answers),
        boxes=sum(len(answer.newest.boxes) for answer in answers),
    )
    ledger.plan_turn(plan, [number for answer in answers for number in answer.annotation_ids])
    return plan


def _append(
    clone: Clone,
    store: ObjectStore,
    ledger: Ledger,
    answers: Sequence[FrameLabels],
    taxonomy: Taxonomy,
    split: SplitParams,
) -> str | None:
    """Append the answers' frames and labels to the clone's log; the turn that holds them, also if that was there before."""
    if not answers:
        return None
    rows = [_row(ledger, answer) for answer in answers]
    labels = [(answer.newest.sha256, _labels(answer, taxonomy)) for answer in answers]
    with open_to_append(clone.path / DATA, taxonomy) as log:
        new = [(row, one) for row, (_, one) in zip(rows, labels, strict=True) if row.sha256 not in log.row_of]
        turn = append_to(log, NAME, _frames(log, store, new, taxonomy, split), labels)
        return turn or log.turns[-1]


def _row(ledger: Ledger, answer: FrameLabels) -> FrameRow:
    row = ledger.frame(answer.newest.sha256)
    if row is None or row.key is None or row.width is None or row.height is None:
        raise UserError(
            f"frame {answer.newest.sha256}: annotated, but the ledger does not know where it lies; restore the ledger's backup"
        )
    return row


def _labels(answer: FrameLabels, taxonomy: Taxonomy) -> Labels:
    boxes = answer.newest.boxes
    return Labels(
        boxes=stack(boxes),
        class_ids=np.array([taxonomy.id_of[box.label] for box in answer.newest.boxes], np.int64),
        crowd=np.zeros(len(boxes), bool),
        labelled_at=answer.newest.labelled_at,
        annotator=answer.newest.annotator,
    )


def _frames(
    log: Log,
    store: ObjectStore,
    new: Sequence[tuple[FrameRow, Labels]],
    taxonomy: Taxonomy,
    split: SplitParams,
) -> Iterator[Frame]:
    """The new frames with the split of their groups; their bytes are read one by one, while the turn is written."""
    counts = np.zeros((len(new), len(taxonomy.classes)), np.int64)
    for number, (_, labels) in enumerate(new):
        np.add.at(counts[number], labels.class_ids - 1, 1)
    origins = [Origin(row.sha256, int(row.phash or "0", 16), row.bin_id, row.burst) for row, _ in new]
    groups, splits = assign_groups_and_splits(log, origins, counts, split)
    for (row, _), group, to in zip(new, groups, splits, strict=True):
        yield Frame(
            sha256=row.sha256,
            jpeg=_bytes(store, row),
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
        )


def _bytes(store: ObjectStore, row: FrameRow) -> bytes:
    jpeg = store.get(str(row.key))
    if (found := hashlib.sha256(jpeg).hexdigest()) != row.sha256:
        raise UserError(
            f"{store}: {row.key} holds other bytes than its name says (SHA-256 {found}); restore it from the store's backup"
        )
    return jpeg
