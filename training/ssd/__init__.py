"""The student: SSD MobileNet v2, small enough for a Coral EdgeTPU. One verb, ``train``; TensorFlow is imported when it runs."""

from pathlib import Path

from training.ssd.params import SsdParams, TrainReport
from trashnet.taxonomy import Taxonomy

__all__ = ["SsdParams", "TrainReport", "train"]


def train(
    tfrecords: Path,
    taxonomy: Taxonomy,
    params: SsdParams,
    seed: int,
    out: Path,
    live: Path,
    checkpoints: Path,
) -> TrainReport:
    """Train the student; see :func:`training.ssd.loop.train`."""
    from training.ssd.loop import train as run

    return run(tfrecords, taxonomy, params, seed, out, live, checkpoints)
