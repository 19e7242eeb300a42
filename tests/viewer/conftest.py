"""What the viewer's tests start from: a build folder with three small models, and a small deployment."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from dataset import Log
from evaluation import EvaluationParams, evaluate
from tests.servers import S3Server
from tests.viewer.deployment import SmallDeployment, make_deployment
from tests.viewer.models import write_onnx, write_tflite
from tests.viewer.served_app import TIMEOUT_MILLISECONDS
from trashnet.detectors import open_detector
from trashnet.models import MODELS
from trashnet.taxonomy import Taxonomy

# The class and score of each model's one detection; its box is x and y from 0.25 to 0.75 of the photo.
PREDICTIONS = {
    "efficientdet": ("Drink can", 0.9),
    "ssd_float": ("Drink can", 0.8),
    "ssd_int8": ("Cigarette", 0.6),
}


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory, sample_log: Log, taxonomy: Taxonomy) -> Path:
    """A build folder as the pipeline leaves it: ``models``, and their ``predictions`` and ``scorecards``."""
    build = tmp_path_factory.mktemp("viewer") / "build"
    (build / "models").mkdir(parents=True)
    params = EvaluationParams(
        sort_score=0.3, warm_up=1, worst_confusions=3, examples=0, quantisation_gate=1.0
    )
    for model in MODELS:
        path = build / "models" / model.file
        class_name, score = PREDICTIONS[model.name]
        if path.suffix == ".onnx":
            write_onnx(path, taxonomy.names, class_name, score)
        else:
            write_tflite(
                path, taxonomy.names, class_name, score, np.uint8 if "int8" in path.name else np.float32
            )
        evaluate(open_detector(path, taxonomy), sample_log, taxonomy, params, build, model=path)
    return build


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, taxonomy: Taxonomy
) -> SmallDeployment:
    """Champions and a judged challenger in a bucket of their own."""
    root = tmp_path_factory.mktemp("deployment")
    return make_deployment(root, s3_server, f"test-{root.name}", taxonomy, EvaluationParams())


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new tab; at the end it shows no traceback and has connected to this machine only."""
    page = browser.new_page(viewport={"width": 1440, "height": 1100})
    page.set_default_timeout(TIMEOUT_MILLISECONDS)
    hosts: set[str | None] = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).hostname))
    yield page
    assert page.locator('[data-testid="stException"]').count() == 0
    assert hosts <= {"127.0.0.1", None}
    page.close()
