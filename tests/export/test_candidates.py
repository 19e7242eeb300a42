"""Candidates in a real object store."""

from pathlib import Path

import pytest

from export import Candidate, download_model, load_candidate, load_newest_candidate, publish_candidate
from tests.servers import S3Server
from trashnet.errors import UserError
from trashnet.store import ObjectStore, StoreDown


@pytest.fixture
def store(s3_server: S3Server, fresh_bucket: str) -> ObjectStore:
    """An empty bucket."""
    made = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    made.ensure_bucket()
    return made


def publish(
    store: ObjectStore,
    folder: Path,
    model: bytes = b"model",
    scorecard: bytes = b"{}",
    dataset: str = "data-00002",
) -> Candidate:
    """Publish one model and one scorecard."""
    folder.mkdir(exist_ok=True)
    (folder / "ssd_int8.tflite").write_bytes(model)
    (folder / "card.json").write_bytes(scorecard)
    return publish_candidate(
        store,
        {"ssd_int8.tflite": folder / "ssd_int8.tflite"},
        {"scorecards/ssd_int8.json": folder / "card.json"},
        dataset=dataset,
        turns=("00001-sample", "00002-bins"),
        commit="c0ffee",
        scores={"ssd_int8": {"ap": 0.5}},
    )


def test_a_candidate_is_complete_when_its_manifest_is_there(store: ObjectStore, tmp_path: Path) -> None:
    """Every file that it lists is in the store, and the newest one is found without listing any."""
    assert load_newest_candidate(store) is None
    candidate = publish(store, tmp_path)
    assert load_newest_candidate(store) == candidate
    assert candidate.version.startswith("00002-")
    for name, file in candidate.files.items():
        found = store.stat(f"models/{candidate.version}/{name}")
        assert found is not None
        assert found.size == file.bytes


def test_the_same_models_are_published_once(store: ObjectStore, tmp_path: Path) -> None:
    """Another evaluation's milliseconds make no new version; other weights or another dataset do."""
    first = publish(store, tmp_path)
    assert publish(store, tmp_path, scorecard=b'{"ms": 2}') == first
    assert publish(store, tmp_path, model=b"other").version != first.version
    assert publish(store, tmp_path, dataset="data-00003").version != first.version


def test_a_crash_before_the_manifest_leaves_no_candidate(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes down before the n-th object, for every n: only the next run publishes the candidate."""
    newest = publish(store, tmp_path / "undisturbed")
    real, done = store.put, 0
    for dies_at in range(4):
        model, done = f"model {dies_at}".encode(), 0

        def put(key: str, data: bytes, content_type: str = "", dies_at: int = dies_at) -> None:
            nonlocal done
            if done == dies_at:
                raise StoreDown("down")
            done += 1
            real(key, data, content_type)

        monkeypatch.setattr(store, "put", put)
        with pytest.raises(StoreDown):
            publish(store, tmp_path / "killed", model)
        assert load_newest_candidate(store) == newest
        monkeypatch.setattr(store, "put", real)
        newest = publish(store, tmp_path / "killed", model)
        assert load_newest_candidate(store) == newest


def test_a_model_is_downloaded_once_and_checked(store: ObjectStore, tmp_path: Path) -> None:
    """A second call reads the disk; a damaged local file is downloaded again; a damaged object is refused."""
    candidate = publish(store, tmp_path / "from")
    path = download_model(store, candidate, "ssd_int8.tflite", tmp_path / "to")
    assert path.read_bytes() == b"model"
    path.write_bytes(b"damaged")
    assert download_model(store, candidate, "ssd_int8.tflite", tmp_path / "to").read_bytes() == b"model"
    path.unlink()
    store.put(f"models/{candidate.version}/ssd_int8.tflite", b"mOdel")
    with pytest.raises(UserError, match="SHA-256"):
        download_model(store, candidate, "ssd_int8.tflite", tmp_path / "to")
    assert not path.exists()


def test_a_model_that_a_candidate_lacks_is_named(store: ObjectStore, tmp_path: Path) -> None:
    """The message lists what it has."""
    with pytest.raises(UserError, match=r"has no teacher\.onnx; it has"):
        download_model(store, publish(store, tmp_path), "teacher.onnx", tmp_path)


def test_a_damaged_manifest_is_one_clear_line(store: ObjectStore, tmp_path: Path) -> None:
    """Whoever damaged it, the message names the object."""
    candidate = publish(store, tmp_path)
    store.put(f"models/{candidate.version}/manifest.json", b"{")
    with pytest.raises(UserError, match="is not a manifest"):
        load_newest_candidate(store)
    store.put("models/newest.json", b"[]")
    with pytest.raises(UserError, match=r"newest\.json is damaged"):
        load_newest_candidate(store)
    assert load_candidate(store, "00009-none") is None
