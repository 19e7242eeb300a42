"""The flywheel is found by its settings, and what cannot be read of it is named."""

from pathlib import Path

import pytest

from export import load_judgement
from export.champions import CHANGES_KEY
from tests.servers import S3Server
from tests.viewer.deployment import REASON, SmallDeployment, write_environment
from trashnet.errors import UserError
from trashnet.models import STUDENT
from viewer.deployment import Deployment, find_deployment, read_judged_candidate, read_models_in_use


@pytest.fixture
def found(deployment: SmallDeployment) -> Deployment:
    """The small deployment, found by its settings."""
    found = find_deployment(deployment.environment)
    assert found is not None
    return found


def test_there_is_no_flywheel_without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a variable: that is no error. Some of them: the others are named."""
    monkeypatch.delenv("TRASHNET_S3_ENDPOINT", raising=False)
    assert find_deployment(tmp_path / "stack.env") is None
    monkeypatch.setenv("TRASHNET_S3_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="TRASHNET_S3_ACCESS_KEY"):
        find_deployment(tmp_path / "stack.env")


def test_champions_and_the_newest_candidate_are_read(found: Deployment, deployment: SmallDeployment) -> None:
    """Each with why it is in use; the newest one comes first in the list."""
    in_use = read_models_in_use(found)
    for role in ("teacher", "student"):
        assert in_use.champions[role] == deployment.champion  # type: ignore[index]
        change = in_use.last_changes[role]  # type: ignore[index]
        assert change is not None
        assert (change.by, change.reason) == ("ann", REASON)
    assert in_use.newest == deployment.challenger
    assert in_use.versions() == [deployment.challenger.version, deployment.champion.version]
    assert in_use.problems == ()
    assert found.data == deployment.clone / "data"


def test_a_candidate_comes_with_what_the_gate_said(found: Deployment, deployment: SmallDeployment) -> None:
    """The champion was never judged; one that is not there is named."""
    judged = read_judged_candidate(found, deployment.challenger.version)
    assert judged.judgement == load_judgement(deployment.store, deployment.challenger.version)
    assert read_judged_candidate(found, deployment.champion.version).judgement is None
    with pytest.raises(UserError, match="no candidate 00007-nothing"):
        read_judged_candidate(found, "00007-nothing")


def test_a_model_is_downloaded_and_checked(found: Deployment, deployment: SmallDeployment) -> None:
    """To the folder where flows look too."""
    path = found.download(deployment.champion, STUDENT.file)
    assert path == deployment.clone.parent / "models" / deployment.champion.version / STUDENT.file
    assert path.stat().st_size == deployment.champion.files[STUDENT.file].bytes


def test_a_damaged_part_is_named_and_hides_no_other(found: Deployment, deployment: SmallDeployment) -> None:
    """The list of changes cannot be read; champions and the newest candidate can."""
    whole = deployment.store.get(CHANGES_KEY)
    deployment.store.put(CHANGES_KEY, b"{")
    try:
        in_use = read_models_in_use(found)
    finally:
        deployment.store.put(CHANGES_KEY, whole)
    assert in_use.champions["teacher"] == deployment.champion
    assert in_use.newest == deployment.challenger
    (problem,) = in_use.problems
    assert CHANGES_KEY in problem


def test_a_store_that_does_not_answer_is_named_with_the_remedy(
    deployment: SmallDeployment, s3_server: S3Server, tmp_path: Path
) -> None:
    """At once, in one sentence."""
    bucket = deployment.store.bucket
    write_environment(tmp_path / "stack.env", deployment.clone, "http://127.0.0.1:9", s3_server, bucket)
    down = find_deployment(tmp_path / "stack.env")
    assert down is not None
    with pytest.raises(UserError, match=r"does not answer .* `trashnet up` starts"):
        read_models_in_use(down)
