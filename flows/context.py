"""What every flow opens first: the deployment's settings, store, ledger, clone and models.

A flow run is a process of its own, which should begin at once: what only some flows need is imported when
they ask for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trashnet.clone import Clone
from trashnet.ledger import Ledger, open_ledger
from trashnet.params import load_params, load_seed
from trashnet.settings import Settings, load_settings
from trashnet.store import ObjectStore, open_store
from trashnet.taxonomy import Taxonomy, load_taxonomy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dataset import GrowthParams
    from dataset.splits import SplitParams
    from export import Candidate
    from ingest import IngestParams
    from labeling import Client, LabelingParams, Project
    from selection import SelectionParams
    from training.params import RetrainingParams
    from trashnet.detectors import Detections, Detector

TEACHER, STUDENT = "efficientdet.onnx", "ssd_int8.tflite"


@dataclass(frozen=True)
class Versioned:
    """A candidate's detector under the candidate's version: bins name it as their release, and scores are told apart by it."""

    name: str
    detector: "Detector"

    def detect(self, images: "Sequence[NDArray[np.uint8]]") -> "list[Detections]":
        """Detect on RGB images, see :class:`trashnet.detectors.Detector`."""
        return self.detector.detect(images)


@dataclass(frozen=True)
class FlowContext:
    """One deployment, opened. Numbers and classes are read from the folder that the flow runs in."""

    settings: Settings
    store: ObjectStore
    ledger: Ledger
    taxonomy: Taxonomy

    @cached_property
    def ingest(self) -> "IngestParams":
        """How frames are checked."""
        from ingest import IngestParams

        return load_params("ingest", IngestParams)

    @cached_property
    def selection(self) -> "SelectionParams":
        """Which frames people should see."""
        from selection import SelectionParams

        return load_params("selection", SelectionParams)

    @cached_property
    def labeling(self) -> "LabelingParams":
        """How tasks are made and answers checked."""
        from labeling import LabelingParams

        return load_params("labeling", LabelingParams)

    @cached_property
    def growth(self) -> "GrowthParams":
        """How many labelled frames make a turn."""
        from dataset import GrowthParams

        return load_params("growth", GrowthParams)

    @cached_property
    def retraining(self) -> "RetrainingParams":
        """How many new frames make a retraining."""
        from training.params import RetrainingParams

        return load_params("retraining", RetrainingParams)

    @cached_property
    def split(self) -> "SplitParams":
        """How new frames are grouped and split."""
        from dataset.splits import SplitParams

        return load_params("split", SplitParams)

    @cached_property
    def seed(self) -> int:
        """The seed that all rooms share."""
        return load_seed()

    @cached_property
    def clone(self) -> Clone:
        """Where turns are committed."""
        return Clone(self.settings.clone)

    @cached_property
    def label_studio(self) -> "Client":
        """Label Studio's API."""
        from labeling import connect

        return connect(self.settings)

    @cached_property
    def project(self) -> "Project":
        """The annotators' project."""
        from labeling import ensure_project

        return ensure_project(
            self.label_studio, self.settings, self.taxonomy, self.labeling, self.class_counts
        )

    @cached_property
    def class_counts(self) -> Mapping[str, int]:
        """Boxes per class name that the dataset has; empty before there is one."""
        from dataset import Log

        root = self.settings.clone / "data"
        if not (root / "labels").is_dir():
            return {}
        counts = Log(root, self.taxonomy).box_counts()
        return dict(zip(self.taxonomy.names, counts.tolist(), strict=True))

    @cached_property
    def candidate(self) -> "Candidate | None":
        """The newest candidate: its models look at what comes in. ``None`` before the first."""
        from export import load_newest_candidate

        return load_newest_candidate(self.store)

    def model(self, name: str) -> "Detector | None":
        """One of the newest candidate's models, downloaded once; ``None`` if there is no candidate, or none with such a model."""
        from export import download_model
        from trashnet.detectors import open_detector

        if self.candidate is None or name not in self.candidate.files:
            return None
        path = download_model(self.store, self.candidate, name, self.settings.clone.parent / "models")
        return Versioned(self.candidate.version, open_detector(path, self.taxonomy))


@contextmanager
def open_context(settings: Settings | None = None) -> Iterator[FlowContext]:
    """Open the deployment whose settings are in the environment. Raises :class:`trashnet.errors.UserError` if a part is missing or down."""
    settings = settings or load_settings()
    ledger = open_ledger(settings.ledger_url)
    try:
        yield FlowContext(settings, open_store(settings), ledger, load_taxonomy(Path("taxonomy.yaml")))
    finally:
        ledger.close()
