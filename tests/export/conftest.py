"""What the tests of candidates share: a bucket of a real object store, a gate set, and detectors by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset import GateSet
from evaluation import EvaluationParams
from evaluation.gate import GateParams
from export import GateCriteria
from tests.evaluation.conftest import JitteringDetector
from tests.evaluation.drawn_gate_set import detector_maker, draw_gate_set
from tests.servers import S3Server
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

# on a machine with other work the clock says nothing about two detectors that look answers up
GATE = GateParams(max_latency_ratio=1000.0, max_size_ratio=2.0, resamples=200, flips=1000)
ERRORS: dict[str, dict[str, Any]] = {
    "good": {},
    "copy": {},
    "fair": {"confuse": 0.3},
    "blind to class 2": {"lose_class": 2},
    "untrained": {"lose": 1.0, "clutter": 20},
}


@pytest.fixture
def store(s3_server: S3Server, fresh_bucket: str) -> ObjectStore:
    """An empty bucket."""
    made = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    made.ensure_bucket()
    return made


@pytest.fixture(scope="module")
def gate_set(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> GateSet:
    """Sixty drawn frames."""
    log = draw_gate_set(tmp_path_factory.mktemp("gate") / "data", taxonomy)
    return GateSet("gate-00001", log.frames("test"), ("exploration",) * 60, {})


@pytest.fixture
def criteria(
    gate_set: GateSet, taxonomy: Taxonomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> GateCriteria:
    """Files are opened as the detectors that they name."""
    make: Callable[..., JitteringDetector] = detector_maker(gate_set.frames, taxonomy)

    def open_detector(path: Path, _taxonomy: Taxonomy) -> JitteringDetector:
        name = path.read_text().partition(" of ")[0]
        return make(name, **ERRORS[name])

    monkeypatch.setattr("export.candidate_gate.open_detector", open_detector)
    return GateCriteria(gate_set, taxonomy, EvaluationParams(), GATE, 20, tmp_path / "models")
