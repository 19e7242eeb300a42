"""A small deployment for the viewer: a real store, a clone's dataset log with a gate set, judged candidates.

The candidates' files are the smallest real models: each detects one item in the middle of any photo. On the
gate set's frames lies one item just there, mostly a drink can; so a candidate that says "cigarette" loses
known items.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dataset import Frame, GrowthParams, Labels, Log, append_turn, read_gate_set
from dataset.append import open_to_append
from dataset.gate_set import step_gate_set
from evaluation import EvaluationParams
from evaluation.gate import GateParams
from export import Candidate, GateCriteria, judge_candidate, override, publish_candidate
from tests.servers import S3Server
from tests.viewer.models import write_onnx, write_tflite
from trashnet.choice import EXPLORATION
from trashnet.models import STUDENT, TEACHER
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

SIZE = 160  # pixels a side of a frame; its item is x and y from 40 to 120
CANS, CIGARETTES = 16, 4  # items of the gate set, one on each frame
# every latency is a few microseconds, so the ratio of two of them says nothing
GATE = GateParams(
    class_boxes=10, slice_groups=5, min_groups=10, resamples=200, flips=1000, max_latency_ratio=1000.0
)
REASON = "trained on other drawn scenes"


@dataclass(frozen=True)
class SmallDeployment:
    """Where it is, and its candidates: the champion of both roles, and the newest."""

    environment: Path
    clone: Path
    store: ObjectStore
    champion: Candidate
    challenger: Candidate


def make_deployment(
    root: Path, server: S3Server, bucket: str, taxonomy: Taxonomy, params: EvaluationParams
) -> SmallDeployment:
    """A champion by a person's decision, and a newer candidate that the gate has judged.

    The newer teacher takes everything for a cigarette, the newer student is the champion's with a higher
    score.
    """
    store = ObjectStore(server.url, server.access_key, server.secret_key, bucket, "us-east-1")
    store.ensure_bucket()
    environment, clone = root / "stack.env", root / "clone"
    write_environment(environment, clone, server.url, server, bucket)
    log = make_log(clone / "data", taxonomy)
    champion = publish(store, root / "first", 1, taxonomy, ("Drink can", 0.9), ("Drink can", 0.6))
    override(store, champion.version, ["teacher", "student"], by="ann", reason=REASON)
    challenger = publish(store, root / "second", 2, taxonomy, ("Cigarette", 0.9), ("Drink can", 0.7))
    criteria = GateCriteria(read_gate_set(log), taxonomy, params, GATE, 20, root / "models")
    judge_candidate(store, challenger, criteria)
    return SmallDeployment(environment, clone, store, champion, challenger)


def write_environment(path: Path, clone: Path, endpoint: str, server: S3Server, bucket: str) -> None:
    """The settings as the embedded stack writes them; only the store is there."""
    nobody = "http://127.0.0.1:9"
    variables = {
        "S3_ENDPOINT": endpoint,
        "S3_ACCESS_KEY": server.access_key,
        "S3_SECRET_KEY": server.secret_key,
        "S3_BUCKET": bucket,
        "CLONE": clone,
        "LABEL_STUDIO_URL": nobody,
        "LABEL_STUDIO_TOKEN": "none",
        "GATEWAY_URL": nobody,
        "GATEWAY_SECRET": "a-secret-of-16-letters",
    }
    path.write_text("".join(f"TRASHNET_{name}={value}\n" for name, value in variables.items()))


def make_log(root: Path, taxonomy: Taxonomy) -> Log:
    """A log whose test frames were drawn at random, and make a gate set; with some frames to train on."""
    frames, labels = [], []
    for number in range(CANS + CIGARETTES + 4):
        name = "Drink can" if number < CANS else "Cigarette"
        picture = Image.new("RGB", (SIZE, SIZE), (40 + 5 * number, 90, 120))
        ImageDraw.Draw(picture).rectangle((40, 40, 119, 119), "silver" if name == "Drink can" else "white")
        out = io.BytesIO()
        picture.save(out, "JPEG")
        sha = hashlib.sha256(out.getvalue()).hexdigest()
        split = "test" if number < CANS + CIGARETTES else "train"
        frames.append(
            Frame(
                *(sha, out.getvalue(), SIZE, SIZE),
                split,  # type: ignore[arg-type]
                *(f"group {number}", number, f"frame{number:02d}.jpg"),
                bin_id=f"bin{number % 2}",
                upload_reason=EXPLORATION,
                selected_by=EXPLORATION,
            )
        )
        box = np.array([[40.0, 40, 80, 80]])
        labels.append((sha, Labels(box, np.array([taxonomy.id_of[name]]), np.zeros(1, bool))))
    append_turn(root, "bins", frames, labels, taxonomy)
    with open_to_append(root, taxonomy) as log:
        step_gate_set(log, GrowthParams())
    return Log(root, taxonomy)


def publish(
    store: ObjectStore,
    folder: Path,
    number: int,
    taxonomy: Taxonomy,
    teacher: tuple[str, float],
    student: tuple[str, float],
) -> Candidate:
    """A candidate of this dataset number; each model detects one item of this class and score."""
    folder.mkdir(parents=True)
    write_onnx(folder / TEACHER.file, taxonomy.names, *teacher)
    write_tflite(folder / STUDENT.file, taxonomy.names, *student, np.uint8)
    models = {name: folder / name for name in (TEACHER.file, STUDENT.file)}
    dataset = f"data-{number:05}"
    return publish_candidate(store, models, {}, dataset=dataset, turns=(), commit="c0ffee", scores={})
