"""What the demo starts from, out of the repository's DVC remote: the drawn sample and the trained student."""

import json
import shutil
from pathlib import Path

import yaml

from dataset import Log
from trashnet.models import STUDENT
from trashnet.taxonomy import Taxonomy

REPOSITORY = Path(__file__).resolve().parent.parent
REMOTE = REPOSITORY / ".dvc/sample-remote/files/md5"


def shipped_sample(folder: Path, taxonomy: Taxonomy) -> Log:
    """Its 612 frames, which were drawn with another seed than those that the shipped student learnt from."""
    listing = json.loads(_object(REPOSITORY / "data.dvc").read_bytes())
    for row in listing:
        path = folder / row["relpath"]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_remote(row["md5"]), path)
    return Log(folder, taxonomy)


def shipped_student(folder: Path) -> Path:
    """The int8 file that the demo's bins begin with (docs/log.md says how it was trained)."""
    path = folder / STUDENT.file
    shutil.copy(_object(REPOSITORY / "operations/demo_student.tflite.dvc"), path)
    return path


def _object(pointer: Path) -> Path:
    return _remote(str(yaml.safe_load(pointer.read_text())["outs"][0]["md5"]))


def _remote(md5: str) -> Path:
    return REMOTE / md5[:2] / md5[2:]
