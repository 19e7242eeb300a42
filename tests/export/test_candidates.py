"""Candidates in a real object store."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from export import (
    Candidate,
    download_model,
    load_candidate,
    load_newest_candidate,
    publish_candidate,
)
from trashnet.errors import UserError
from trashnet.store import ObjectStore, StoreDown


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
    done = 0
    for dies_at in range(4):
        model, done = f"model {dies_at}".encode(), 0

        def dying(write: Callable[..., Any], dies_at: int = dies_at) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal done
                if done == dies_at:
                    raise StoreDown("down")
                done += 1
                return write(*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in ("put", "put_if_unchanged"):
                patch.setattr(store, name, dying(getattr(store, name)))
            with pytest.raises(StoreDown):
                publish(store, tmp_path / "killed", model)
        assert load_newest_candidate(store) == newest
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


def test_publishing_an_older_training_leaves_the_newest_where_it_is(
    store: ObjectStore, tmp_path: Path
) -> None:
    """The older one is complete in the store, the newer one stays the newest, whichever was published last.

    Dataset 3 comes behind dataset 2, and dataset 10 behind dataset 9.
    """
    newer = publish(store, tmp_path, model=b"newer", dataset="data-00003")
    older = publish(store, tmp_path, model=b"older", dataset="data-00002")
    assert load_newest_candidate(store) == newer
    assert load_candidate(store, older.version) == older
    assert publish(store, tmp_path, model=b"older", dataset="data-00002") == older
    assert load_newest_candidate(store) == newer
    ninth = publish(store, tmp_path, dataset="data-00009")
    assert publish(store, tmp_path, dataset="data-00010") == load_newest_candidate(store)
    assert publish(store, tmp_path, dataset="data-00009") == ninth != load_newest_candidate(store)


def test_of_one_dataset_the_later_publication_is_the_newer_one(store: ObjectStore, tmp_path: Path) -> None:
    """Publishing the first of two once more, as a retry does, does not bring it back."""
    publish(store, tmp_path, model=b"first")
    second = publish(store, tmp_path, model=b"second")
    publish(store, tmp_path, model=b"first")
    assert load_newest_candidate(store) == second


@pytest.mark.parametrize(
    "version", ["../../planted", "/tmp/planted", "a/../../b", "..", "", "a\nb", "x" * 200]
)
def test_a_manifest_s_version_leads_to_no_other_path(
    store: ObjectStore, tmp_path: Path, version: str
) -> None:
    """Nobody who can write to the store can make a server write outside its folder of models."""
    candidate = publish(store, tmp_path / "from")
    manifest = json.loads(store.get(f"models/{candidate.version}/manifest.json"))
    planted = json.dumps(manifest | {"version": version}).encode()
    store.put(f"models/{candidate.version}/manifest.json", planted)
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_newest_candidate(store)
    store.put("models/newest.json", json.dumps({"version": version}).encode())
    with pytest.raises(UserError, match=r"newest\.json is damaged"):
        load_newest_candidate(store)
    with pytest.raises(UserError, match="no version of a candidate"):
        load_candidate(store, version)


@pytest.mark.parametrize("name", ["../planted", "/tmp/planted", "a/../../b", "a//b", "./a", "a/", "a\\b", ""])
def test_a_manifest_s_file_names_lead_to_no_other_path(store: ObjectStore, tmp_path: Path, name: str) -> None:
    """A file's name is one or more plain names with a slash between them."""
    candidate = publish(store, tmp_path / "from")
    manifest = json.loads(store.get(f"models/{candidate.version}/manifest.json"))
    (file,) = [manifest["files"]["ssd_int8.tflite"]]
    planted = json.dumps(manifest | {"files": {name: file}}).encode()
    store.put(f"models/{candidate.version}/manifest.json", planted)
    with pytest.raises(UserError, match="is not a manifest"):
        load_newest_candidate(store)


def test_a_manifest_names_the_version_that_it_lies_under(store: ObjectStore, tmp_path: Path) -> None:
    """A manifest that was copied to another version's place is refused."""
    first, second = publish(store, tmp_path, model=b"1"), publish(store, tmp_path, model=b"2")
    store.copy(f"models/{first.version}/manifest.json", f"models/{second.version}/manifest.json")
    with pytest.raises(UserError, match=f"says that it is {first.version}"):
        load_candidate(store, second.version)


def test_a_damaged_pointer_is_written_anew_from_the_manifests(store: ObjectStore, tmp_path: Path) -> None:
    """Publishing an older training afterwards still names the furthest candidate there is."""
    newest = publish(store, tmp_path, model=b"new", dataset="data-00003")
    store.put("models/newest.json", b"[]")
    publish(store, tmp_path, model=b"old", dataset="data-00002")
    assert load_newest_candidate(store) == newest


def test_where_the_server_knows_conditional_writes_the_pointer_is_decided_again(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine publishes a newer training between our reading and our writing: ours does not win.

    The embedded stack's server ignores the condition, so the test compares the ETags in its place.
    """
    newer = publish(store, tmp_path, model=b"newer", dataset="data-00003")
    ahead = store.get("models/newest.json")
    other = publish(store, tmp_path, model=b"first", dataset="data-00001")
    store.put("models/newest.json", json.dumps({"version": other.version, "format": 2}).encode())
    real = store.put_if_unchanged

    def compared(key: str, data: bytes, etag: str | None, content_type: str) -> bool:
        if store.get(key) != ahead:
            store.put(key, ahead)  # the other machine
        return store.get_with_etag(key)[1] == etag and real(key, data, etag, content_type)

    monkeypatch.setattr(store, "put_if_unchanged", compared)
    publish(store, tmp_path, model=b"second", dataset="data-00002")
    assert load_newest_candidate(store) == newer


def test_a_clock_that_is_slow_does_not_hide_a_later_training(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's clock is an hour behind: what it publishes afterwards is the newest all the same."""
    first = publish(store, tmp_path, model=b"1")

    class SlowClock(datetime):
        """An hour behind."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("export.publication.datetime", SlowClock)
    second = publish(store, tmp_path, model=b"2")
    assert second.published_at > first.published_at
    assert load_newest_candidate(store) == second
