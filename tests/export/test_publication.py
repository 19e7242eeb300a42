"""Publishing what a clone has trained: only where the training ran, and nothing older by accident."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.support.fault_injection import Killed
from export import list_candidates, load_newest_candidate, publish_candidate, publish_trained_models
from tests.servers import S3Server
from trashnet.clone import Clone, prepare_training_clone
from trashnet.errors import UserError
from trashnet.ledger import Ledger, open_ledger
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy


@dataclass
class Machine:
    """A machine's clone and training clone, with the deployment's store and ledger."""

    clone: Clone
    training: Clone
    store: ObjectStore
    ledger: Ledger
    taxonomy: Taxonomy

    def publish(self, commit: str | None = None) -> Any:
        """What is tested."""
        return publish_trained_models(self.training, self.store, self.ledger, self.taxonomy, commit)


@pytest.fixture
def machine(
    begun: Path, tmp_path: Path, s3_server: S3Server, fresh_bucket: str, taxonomy: Taxonomy
) -> Iterator[Machine]:
    """A training clone at dataset 1."""
    shutil.copytree(begun, tmp_path / "here")
    clone = Clone(tmp_path / "here" / "clone")
    clone.tag("data-00001")
    clone.push()
    store = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    store.ensure_bucket()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield Machine(clone, prepare_training_clone(clone), store, ledger, taxonomy)
    ledger.close()


@pytest.mark.heavy
def test_a_training_is_published_only_where_it_ran(machine: Machine) -> None:
    """The commit of a training that ran elsewhere is not in this clone: a sentence, and nothing uploaded."""
    (machine.clone.path / "params.yaml").write_text("newer")
    machine.clone.commit("newer", "params.yaml")
    with pytest.raises(UserError, match="ran on another machine"):
        machine.publish(machine.clone.head())
    assert list(machine.store.list("models/")) == []


@pytest.mark.heavy
def test_an_old_clone_publishes_nothing_by_itself(machine: Machine, tmp_path: Path) -> None:
    """A worker whose clone is at dataset 1 is asked to publish after another one published dataset 2."""
    model = tmp_path / "model"
    model.write_bytes(b"model")
    newest = publish_candidate(
        machine.store, {"m": model}, {}, dataset="data-00002", turns=(), commit="c", scores={}
    )
    with pytest.raises(
        UserError, match=r"this clone trained data-00001, and candidate .* was published since"
    ):
        machine.publish()
    assert load_newest_candidate(machine.store) == newest


STAGE = """
stages:
  train:
    cmd: mkdir -p build/models && touch build/report.html build/models/labels.txt build/models/edgetpu.json
    outs: [build/report.html, build/models/labels.txt, build/models/edgetpu.json]
"""


@pytest.mark.heavy
def test_a_publication_that_died_ends_with_a_tag_at_the_commit_that_its_manifest_names(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one makes a commit too, with another time: who asks for the candidate's gets the first."""
    for name, text in (("dvc.yaml", STAGE), ("params.yaml", "a: 1")):
        (machine.clone.path / name).write_text(text)
    machine.clone.commit("a pipeline", "dvc.yaml", "params.yaml")
    machine.clone.push()

    def train() -> None:
        machine.training = prepare_training_clone(machine.clone)
        machine.training.dvc("repro")

    def die(*_: Any) -> None:
        raise Killed

    train()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Clone, "tag", die)
        machine.publish()
    time.sleep(1.1)  # a commit's time is in seconds
    train()
    candidate = machine.publish()
    tag = f"refs/tags/models-{candidate.version}"
    assert machine.training.git("ls-remote", "origin", tag).split() == [candidate.commit, tag]
    assert [found.version for found in list_candidates(machine.store)] == [candidate.version]
