"""Comparisons small enough to be computed by hand."""

from collections.abc import Sequence

import numpy as np

from evaluation.gate import GateFrames, ModelOutcomes, PairedOutcomes, ScoredDetections

Detection = tuple[int, int, float, bool]  # frame, class index, score, hit


def frames_of(groups: Sequence[int], items: Sequence[tuple[int, int]], classes: int = 3) -> GateFrames:
    """A gate set from each frame's group and ``(frame, class index)`` of each item.

    Classes 0 and 1 are recycling, the others landfill; group ``g`` was seen by bin ``g % 2``.
    """
    return GateFrames(
        group=np.array(groups, np.int64),
        bin=np.array(groups, np.int64) % 2,
        item_frame=np.array([frame for frame, _ in items], np.int64),
        item_class=np.array([index for _, index in items], np.int64),
        bin_names=("bin-a", "bin-b"),
        class_names=tuple(f"class {c}" for c in range(classes)),
        class_stream=np.array([0 if c < 2 else 1 for c in range(classes)], np.int64),
        stream_names=("recycling", "landfill"),
    )


def model_of(
    frames: GateFrames,
    right: Sequence[bool],
    detections: Sequence[Detection] = (),
    recognised: Sequence[bool] | None = None,
) -> ModelOutcomes:
    """One model, whose utility is right items minus wrong ones; it recognises what it sorts right."""
    gains = np.where(np.array(right, np.bool_), 1.0, -1.0)
    return ModelOutcomes(
        utility=np.bincount(frames.item_frame, gains, minlength=len(frames)),
        right=np.array(right, np.bool_),
        recognised=np.array(right if recognised is None else recognised, np.bool_),
        detections=ScoredDetections(
            frame=np.array([d[0] for d in detections], np.int64),
            class_index=np.array([d[1] for d in detections], np.int64),
            score=np.array([d[2] for d in detections], np.float64),
            hit=np.array([d[3] for d in detections], np.bool_),
        ),
    )


def pair(frames: GateFrames, champion: ModelOutcomes, challenger: ModelOutcomes) -> PairedOutcomes:
    """Both on these frames; a wrong item costs as much as a right one earns."""
    return PairedOutcomes(frames, champion, challenger, step=2.0)
