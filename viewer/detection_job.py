"""Detections of one model on all frames of a gate set, made once by a thread and kept as a file.

Streamlit runs its script anew at every click and stops a run that is under way, so what takes minutes cannot
be done in it.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

from dataset import Frames
from evaluation import Predictions
from trashnet.detectors import Detections, open_detector
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

KEPT_FILES = 20  # detections on the gate sets that were looked at last

log = logging.getLogger(__name__)


class DetectionJob:
    """Detects on frames in a thread that begins at once and ends with the process.

    Attributes:
        total: How many frames there are.
        done: How many of them are done.
        predictions: The detections, ``None`` before the end.
        error: Why there will be none, as a sentence, ``None`` if nothing went wrong.
    """

    def __init__(self, fetch: Callable[[], Path], frames: Frames, taxonomy: Taxonomy, kept: Path) -> None:
        """``fetch`` returns the model's file; ``kept`` is where the detections are read, or else written."""
        self.total, self.done = len(frames), 0
        self.predictions: Predictions | None = None
        self.error: str | None = None
        self._began = time.monotonic()
        self._thread = Thread(target=self._run, args=(fetch, frames, taxonomy, kept), daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there are neither detections nor an error yet."""
        return self.predictions is None and self.error is None

    def seconds_left(self) -> float | None:
        """About how long it still takes; ``None`` before the first frame is done."""
        if not self.done:
            return None
        return (time.monotonic() - self._began) / self.done * (self.total - self.done)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self, fetch: Callable[[], Path], frames: Frames, taxonomy: Taxonomy, kept: Path) -> None:
        try:
            self.predictions = self._detect(fetch, frames, taxonomy, kept)
        except Exception as error:
            self.error = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"

    def _detect(
        self, fetch: Callable[[], Path], frames: Frames, taxonomy: Taxonomy, kept: Path
    ) -> Predictions:
        images = [frames[i].sha256 for i in range(len(frames))]
        if kept.is_file():
            try:
                predictions = Predictions.read(kept, images)
            except UserError as error:
                log.warning("%s: damaged, so detected anew (%s)", kept, error)
            else:
                kept.touch()
                return predictions
        detector = open_detector(fetch(), taxonomy)
        self._began = time.monotonic()
        found: list[Detections] = []
        for position in range(len(frames)):
            found += detector.detect([frames[position].image()])
            self.done = position + 1
        predictions = Predictions.from_detections(images, found)
        predictions.write(kept)
        _remove_old(kept.parent)
        return predictions


def detections_file(folder: Path, model_sha256: str, images: Sequence[str], taxonomy_key: str) -> Path:
    """Where detections are kept: the name says of which model, frames and classes they are."""
    digest = hashlib.sha256("\n".join([model_sha256, taxonomy_key, *images]).encode()).hexdigest()
    return folder / f"detections-{digest[:24]}.json"


def _remove_old(folder: Path) -> None:
    files = sorted(folder.glob("detections-*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in files[:-KEPT_FILES]:
        path.unlink(missing_ok=True)
