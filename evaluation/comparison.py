"""Puts a challenger's exported file beside the champion's: both detect on the same frames, in one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dataset import Frames
from evaluation.evaluator import predict_in_turns
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.gate import (
    Check,
    GateFrames,
    GateParams,
    ModelOutcomes,
    PairedOutcomes,
    SliceChange,
    Verdict,
    gate_frames,
    judge_challenger,
    judge_first_champion,
    model_outcomes,
    slice_changes,
    slices_of_first,
)
from evaluation.gate.slices import GateSlice, gains, gate_slices
from evaluation.params import EvaluationParams
from evaluation.report.examples import Example, draw_frame
from evaluation.sorting_accuracy import Matches, match_items
from trashnet.detectors import Detections, Detector
from trashnet.taxonomy import Taxonomy

OF_CHAMPION = "times the champion's"
EXAMPLES = 4  # frames that show each slice that decided or moved
NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32))
SHOWN_SLICES = 12  # of those that only moved


@dataclass(frozen=True)
class ComparedModel:
    """A model to be judged: its name, its opened file, and the score from which a bin acts on a detection."""

    name: str
    detector: Detector
    sort_score: float


@dataclass(frozen=True)
class SliceExamples:
    """Frames of a slice that decided or moved: as the champion sees each, and as the challenger does.

    ``is_gain``: whether they show what the challenger does better, or what is lost.
    """

    slice: str
    is_gain: bool
    pairs: tuple[tuple[Example, Example], ...]


@dataclass(frozen=True)
class Comparison:
    """The verdict, the digest of the frames and labels that it is about, and frames that show why.

    ``changes``: every class, stream and bin before and after.
    """

    verdict: Verdict
    digest: str
    changes: tuple[SliceChange, ...] = ()
    examples: tuple[SliceExamples, ...] = ()


@dataclass(frozen=True)
class _Run:
    """What one model did on the gate set, and the median milliseconds that a frame took."""

    compared_model: ComparedModel
    predictions: Predictions
    outcomes: ModelOutcomes
    latency_ms: float | None


def compare_models(
    challenger: ComparedModel,
    champion: ComparedModel | None,
    best: ComparedModel | None,
    frames: Frames,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    gate: GateParams,
    seed: int,
    checks: Sequence[Check] = (),
) -> Comparison:
    """Judge a challenger on these frames, which no model was trained on.

    Args:
        challenger: The model that wants to be used.
        champion: The model in use; ``None`` before the first, when absolute minima must be reached.
        best: The best champion there ever was, if that is another one.
        frames: The gate set.
        taxonomy: Classes and streams.
        params: What a wrong and a false detection cost.
        gate: What a challenger must show.
        seed: Of the resampling.
        checks: Numbers that other rooms measured, each with its limit.
    """
    truth = GroundTruth.from_frames(frames)
    rows = [frames[i] for i in range(len(frames))]
    shared = gate_frames(truth, taxonomy, [row.group for row in rows], [row.bin_id for row in rows])
    del rows

    models = [one for one in (challenger, champion, best) if one is not None]
    runs = _run_in_turns(models, frames, truth, shared, taxonomy, params)
    judged = runs[0]
    if champion is None:
        found = Predictions.from_detections(truth.images, [NOTHING] * len(truth.images))
        nothing = model_outcomes(shared, truth, found, 1.0, taxonomy, params)
        verdict = judge_first_champion(shared, judged.outcomes, nothing, gate, checks)
        return Comparison(verdict, truth.digest(), tuple(slices_of_first(shared, judged.outcomes, gate)))
    rival, step = runs[1], 1 + params.wrong_cost
    outcomes = PairedOutcomes(shared, rival.outcomes, judged.outcomes, step)
    against_best = PairedOutcomes(shared, runs[2].outcomes, judged.outcomes, step) if best else None
    checks = [*checks, *_latency_checks(rival, judged, gate)]
    verdict = judge_challenger(outcomes, gate, seed, checks, against_best)
    changes = tuple(slice_changes(outcomes, gate, seed))
    shown = _shown_slices(verdict, changes)
    examples = _examples(shown, outcomes, rival, judged, frames, truth, taxonomy, gate)
    return Comparison(verdict, truth.digest(), changes, examples)


def _run_in_turns(
    models: Sequence[ComparedModel],
    frames: Frames,
    truth: GroundTruth,
    shared: GateFrames,
    taxonomy: Taxonomy,
    params: EvaluationParams,
) -> list[_Run]:
    predicted = predict_in_turns([one.detector for one in models], frames, params.warm_up)
    return [
        _Run(
            one,
            predictions,
            model_outcomes(shared, truth, predictions, one.sort_score, taxonomy, params),
            1000 * float(np.median(seconds)) if seconds else None,
        )
        for one, (predictions, seconds) in zip(models, predicted, strict=True)
    ]


def _latency_checks(champion: _Run, challenger: _Run, gate: GateParams) -> list[Check]:
    if champion.latency_ms is None or challenger.latency_ms is None:
        return []
    ratio = challenger.latency_ms / champion.latency_ms
    limit, value = gate.max_latency_ratio, round(ratio, 3)
    return [Check(name="Latency", value=value, limit=limit, bound="at most", unit=OF_CHAMPION)]


def _shown_slices(verdict: Verdict, changes: Sequence[SliceChange]) -> dict[tuple[str, str], bool]:
    """The slices whose frames are shown, by kind and name, and whether they gained: what blocked or moved.

    All that blocked, and of the others those that moved most, so that a page stays small.
    """
    blocked = {(f.slice.kind, f.slice.name): False for f in verdict.findings if f.slice is not None}
    moved = sorted((c for c in changes if c.moved), key=lambda change: -abs(change.gain))
    return {(c.kind, c.name): c.gain > 0 for c in moved[:SHOWN_SLICES]} | blocked


def _examples(
    shown: Mapping[tuple[str, str], bool],
    outcomes: PairedOutcomes,
    champion: _Run,
    challenger: _Run,
    frames: Frames,
    truth: GroundTruth,
    taxonomy: Taxonomy,
    gate: GateParams,
) -> tuple[SliceExamples, ...]:
    """For each of these slices, the frames in which most of its items are won or lost."""
    drawings = [_Drawings(run, frames, truth, taxonomy) for run in (champion, challenger)]
    examples = []
    for one in gate_slices(outcomes.frames, gate.class_boxes):
        if (one.kind, one.name) in shown:
            is_gain = shown[one.kind, one.name]
            positions = _most_changed(outcomes, one, is_gain=is_gain)
            pairs = tuple((drawings[0].of(position), drawings[1].of(position)) for position in positions)
            examples.append(SliceExamples(f"{one.kind} {one.name}", is_gain, pairs))
    return tuple(examples)


def _most_changed(outcomes: PairedOutcomes, part: GateSlice, *, is_gain: bool) -> list[int]:
    gain = gains(outcomes.champion, outcomes.challenger, part.kind)
    changed = part.items & (gain == (1 if is_gain else -1))
    counts = np.bincount(outcomes.frames.item_frame[changed], minlength=len(outcomes.frames))
    return [int(i) for i in np.argsort(-counts, kind="stable")[:EXAMPLES] if counts[i]]


class _Drawings:
    """Frames as one model sees them. A frame of many slices is drawn once, and the split is matched once."""

    def __init__(self, run: _Run, frames: Frames, truth: GroundTruth, taxonomy: Taxonomy) -> None:
        self._frames, self._truth, self._taxonomy = frames, truth, taxonomy
        self._acted = run.predictions.above(run.compared_model.sort_score)
        self._drawn: dict[int, Example] = {}

    @cached_property
    def _matches(self) -> Matches:
        return match_items(self._truth, self._acted)

    def of(self, position: int) -> Example:
        """The frame at this position."""
        if position not in self._drawn:
            self._drawn[position] = draw_frame(
                self._frames, position, self._truth, self._acted, self._matches, self._taxonomy
            )
        return self._drawn[position]
