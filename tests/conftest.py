"""What every room's tests start from: the product's taxonomy and a small log of drawn scenes."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset import SPLITS, Frame, Labels, Log, append_turn
from synthetic import draw_scene
from trashnet.taxonomy import Taxonomy, load_taxonomy

pytest_plugins = ["tests.servers", "tests.clones"]

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


# Fixtures that start a server or drive a browser: a test that uses them, however indirectly, is no quick one.
SERVER_FIXTURES = {
    "browser",
    "database",
    "deployment",
    "label_studio_server",
    "mongod_program",
    "postgres_server",
    "prefect_server",
    "s3_server",
    "small_stack",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a server, so that `make test-quick` leaves them out."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        on_postgresql = parameters is not None and "postgresql" in parameters.params.values()
        if on_postgresql or SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    """The 57 classes as shipped."""
    return load_taxonomy(REPOSITORY / "taxonomy.yaml")


@pytest.fixture(scope="session")
def sample_log(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Log:
    """24 drawn frames of 160 px (16 train, 4 val, 4 test), 3 to 6 items of 12 classes in each.

    The first 8 hold 3 big items each.
    """
    root = tmp_path_factory.mktemp("sample") / "data"
    classes = [5, 12, 6, 7, 20, 19, 37, 40, 41, 30, 51, 24]
    splits = [SPLITS[0]] * 16 + [SPLITS[1]] * 4 + [SPLITS[2]] * 4
    frames, labels = [], []
    for number, split in enumerate(splits):
        rng = np.random.default_rng([7, number])
        chosen = [classes[(3 * number + i) % 12] for i in range(3 if number < 8 else int(rng.integers(3, 7)))]
        image, boxes, class_ids = draw_scene(rng, chosen, 160, taxonomy)
        jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        sha = hashlib.sha256(jpeg).hexdigest()
        name = f"drawn{number:02d}"
        frames.append(
            Frame(sha, jpeg, 160, 160, split, name, number, f"{name}.jpg", bin_id="bin00", burst=name)
        )
        labels.append((sha, Labels(boxes, class_ids, np.zeros(len(class_ids), bool), annotator="drawn")))
    append_turn(root, "drawn", frames, labels, taxonomy)
    return Log(root, taxonomy)
