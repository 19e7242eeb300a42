"""Credit: labels that a candidate learnt from and the champion had not, beside what changed in the gate set.

For every class, stream and bin: the share of items that were right before and after, and the turns
that brought new labels there, with how their frames were chosen. The change is measured, on frames that
neither model was trained on. That these very labels caused it is likely and not proven: training anew alone
moves slices, too, which is why a slice counts as moved only if chance is ruled out.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dataset import Log
from dataset.new_labels import NewLabels, TurnShare, new_labels
from evaluation.gate import SliceChange
from evaluation.gate.sentences import counted
from export.candidates import Candidate
from trashnet.taxonomy import Taxonomy

EXAMPLE_FRAMES = 4  # of a slice that moved


class SliceCredit(BaseModel):
    """A slice before and after, and the turns whose labels are new there, the one with most of them first.

    ``frames``: SHA-256 of the frames with most new labels of the slice.
    """

    model_config = ConfigDict(frozen=True)

    change: SliceChange
    turns: tuple[TurnShare, ...]
    frames: tuple[str, ...]

    @property
    def boxes(self) -> int:
        """New labels of the slice."""
        return sum(turn.boxes for turn in self.turns)


def credit_labels(
    changes: Iterable[SliceChange], log: Log, candidate: Candidate, champion: Candidate | None
) -> tuple[SliceCredit, ...]:
    """Put the new labels beside every slice.

    Args:
        changes: Of the candidate against the champion.
        log: The dataset log.
        candidate: The challenger; its manifest names the turns that it was trained on.
        champion: Likewise; without one every label is new.

    Raises:
        UserError: The log lacks a turn that the candidate was trained on.
    """
    seen = Log(log.root, log.taxonomy, candidate.turns)
    labels = new_labels(seen, champion.turns if champion is not None else ())
    names = seen.column("sha256")
    return tuple(
        SliceCredit(
            change=change,
            turns=tuple(labels.shares(boxes)),
            frames=tuple(names[row] for row in labels.frames(boxes, EXAMPLE_FRAMES)) if change.moved else (),
        )
        for change in changes
        for boxes in [_boxes_of(labels, change, log.taxonomy)]
    )


def credit_markdown(slices: Sequence[SliceCredit]) -> list[str]:
    """The lines of a page for people: what moved, each with its labels, and a table of all classes."""
    lines: list[str] = []
    for credit in slices:
        if credit.change.moved:
            lines += [f"- {describe_change(credit.change)}", f"  {describe_labels(credit)}"]
            if credit.frames:
                lines.append(f"  Frames: {', '.join(sha256[:12] for sha256 in credit.frames)}")
    if not lines:
        lines.append("No slice moved: every change may be chance, on as many frames as there are.")
    lines += [
        "",
        "| slice | items | before | after | change | p | new labels | turns that brought them |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(credit) for credit in slices if credit.change.kind != "bin" or credit.change.moved]
    return [
        *lines,
        "",
        "Before and after: share of a slice's items in the gate set that are sorted right, for a class those "
        "that are recognised as it. p: adjusted for all slices. That the new labels caused a change is "
        "likely, not proven: training anew moves slices, too.",
    ]


def describe_change(change: SliceChange) -> str:
    """One sentence with the numbers of a slice."""
    kind = f"{change.kind[0].upper()}{change.kind[1:]} {change.name}"
    after = f"{100 * change.after:.0f} % of its {change.boxes} items are {counted(change.kind)}"
    if change.before is None:
        return f"{kind}: {after}."
    chance = f" (p = {change.p:.4f}, adjusted for all slices)" if change.p is not None else ""
    return f"{kind}: {after}, {100 * change.before:.0f} % before: {100 * change.gain:+.0f} points{chance}."


def describe_labels(credit: SliceCredit) -> str:
    """One sentence about the new labels of a slice."""
    if not credit.turns:
        return "No label of it is new: the change comes from labels of other slices, or from training anew."
    return f"New labels: {'; '.join(_describe_turn(turn) for turn in credit.turns)}."


def _describe_turn(turn: TurnShare) -> str:
    chosen = ", ".join(f"{count} {words}" for words, count in turn.chosen.items())
    corrected = f", {turn.corrected} corrected" if turn.corrected else ""
    of_bins = f"; bins {', '.join(list(turn.bins)[:3])}{' and more' if len(turn.bins) > 3 else ''}"
    return (
        f"turn {turn.turn} brought {_count(turn.boxes, 'box', 'boxes')} on "
        f"{_count(turn.frames, 'frame', 'frames')} ({chosen}{corrected}"
        f"{of_bins if turn.bins else ''})"
    )


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _row(credit: SliceCredit) -> str:
    change = credit.change
    before = "" if change.before is None else f"{100 * change.before:.0f} %"
    gain = "" if change.before is None else f"{100 * change.gain:+.1f}"
    p = f"{change.p:.3f}" if change.p is not None else "too few" if change.before is not None else ""
    turns = ", ".join(f"{turn.turn.split('-')[0]}: {turn.boxes}" for turn in credit.turns)
    return (
        f"| {change.kind} {change.name} | {change.boxes} | {before} | {100 * change.after:.0f} % | {gain} "
        f"| {p} | {credit.boxes} | {turns} |"
    )


def _boxes_of(labels: NewLabels, change: SliceChange, taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """Which of the new boxes lie in a slice."""
    if change.kind == "bin":
        return labels.of_bin(change.name)
    names = [one.name if change.kind == "class" else one.stream for one in taxonomy.classes]
    of_slice = [name == change.name for name in names]
    return np.array(of_slice, bool)[labels.class_index]
