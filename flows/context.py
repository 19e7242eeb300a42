"""What flows open of a deployment: store, ledger, clone, Label Studio and models, each when it is first used.

A flow run is a process of its own, which should begin at once: what only some flows need is imported when
they ask for it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trashnet.clone import Clone
from trashnet.ledger import Ledger, open_ledger
from trashnet.models import MODEL_OF_ROLE, Role
from trashnet.params import load_params, load_seed
from trashnet.settings import Settings, load_settings
from trashnet.store import ObjectStore, open_store
from trashnet.taxonomy import Taxonomy, load_taxonomy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dataset import GateSet, Log
    from export import Candidate, GateCriteria
    from labeling import Client, Project
    from trashnet.detectors import Detections, Detector


NO_GATE_SET = "no gate set"


@dataclass(frozen=True)
class CandidateDetector:
    """A candidate's detector, named by the candidate's version: bins and the ledger name it so too."""

    name: str
    detector: "Detector"

    @property
    def image_size(self) -> int:
        """The side of the detector's input in pixels."""
        return self.detector.image_size

    def detect(self, images: "Sequence[NDArray[np.uint8]]") -> "list[Detections]":
        """Detect on RGB images, see :class:`trashnet.detectors.Detector`."""
        return self.detector.detect(images)


class FlowContext:
    """One deployment; a part is opened when it is first used, so a task opens what it uses and no more.

    Every part raises :class:`trashnet.errors.UserError` if it is missing or does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        self.settings = settings

    def close(self) -> None:
        """Close what was opened."""
        if "ledger" in self.__dict__:
            self.ledger.close()

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        return open_store(self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, its tables up to date."""
        return open_ledger(self.settings.ledger_url)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The classes, from the folder that the flow runs in."""
        return load_taxonomy(Path("taxonomy.yaml"))

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
        from labeling import LabelingParams, ensure_project

        params = load_params("labeling", LabelingParams)
        return ensure_project(self.label_studio, self.settings, self.taxonomy, params, self.class_counts)

    @cached_property
    def class_counts(self) -> Mapping[str, int]:
        """Boxes per class name that the dataset has; empty before there is one."""
        if self.dataset_log is None:
            return {}
        counts = self.dataset_log.box_counts()
        return dict(zip(self.taxonomy.names, counts.tolist(), strict=True))

    def champion(self, role: Role) -> "Candidate | None":
        """The candidate whose model is in use in this role; ``None`` before the first."""
        from export import load_champion

        return load_champion(self.store, role)

    def detector(self, role: Role) -> "Detector | None":
        """The champion's detector, downloaded once; ``None`` if there is none yet.

        It scores and pre-labels frames: a candidate that the gate has not let through does neither.
        """
        from export import download_model
        from trashnet.detectors import open_detector

        champion = self.champion(role)
        if champion is None:
            return None
        folder = self.settings.clone.parent / "models"
        path = download_model(self.store, champion, MODEL_OF_ROLE[role].file, folder)
        return CandidateDetector(champion.version, open_detector(path, self.taxonomy))

    @cached_property
    def dataset_log(self) -> "Log | None":
        """The clone's dataset log; ``None`` before the first turn."""
        from dataset import Log

        root = self.settings.clone / "data"
        return Log(root, self.taxonomy) if (root / "labels").is_dir() else None

    @cached_property
    def gate_set(self) -> "GateSet":
        """The newest frames that models are compared on; empty before there are any."""
        from dataset import Frames, GateSet, gate_versions, read_gate_set

        if self.dataset_log is None or not gate_versions(self.dataset_log.root):
            return GateSet(NO_GATE_SET, Frames([]), (), {})
        return read_gate_set(self.dataset_log)

    @property
    def criteria(self) -> "GateCriteria":
        """What candidates are judged by: the gate set of the clone's dataset, and the gate's numbers."""
        from evaluation import EvaluationParams
        from evaluation.gate import GateParams
        from export import GateCriteria

        return GateCriteria(
            gate_set=self.gate_set,
            taxonomy=self.taxonomy,
            params=load_params("evaluation", EvaluationParams),
            gate=load_params("gate", GateParams),
            seed=load_seed(),
            models=self.settings.clone.parent / "models",
            log=self.dataset_log,
        )


@contextmanager
def open_context(settings: Settings | None = None) -> Iterator[FlowContext]:
    """The deployment of these settings, by default those in the environment; closed at the block's end."""
    context = FlowContext(settings or load_settings())
    try:
        yield context
    finally:
        context.close()
