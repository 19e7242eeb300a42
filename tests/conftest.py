"""What every room's tests start from: the product's taxonomy and a small log of drawn scenes."""

import os
from pathlib import Path

import pytest

from trashnet.taxonomy import Taxonomy, load_taxonomy

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    """The 57 classes as shipped."""
    return load_taxonomy(REPOSITORY / "taxonomy.yaml")
