"""A flow opens only those parts of its deployment that it uses."""

from pathlib import Path
from typing import Any

import pytest

from flows.context import open_context
from trashnet.errors import UserError
from trashnet.settings import Settings


def settings(folder: Path, **changes: Any) -> Settings:
    """A deployment of which only the ledger can be opened."""
    values: dict[str, Any] = {
        "s3_endpoint": "http://127.0.0.1:1",
        "s3_access_key": "none",
        "s3_secret_key": "none",
        "ledger_url": f"sqlite:///{folder}/ledger.sqlite",
        "label_studio_url": "http://127.0.0.1:1",
        "label_studio_token": "none",
        "clone": folder / "clone",
        "gateway_url": "http://127.0.0.1:1",
        "gateway_secret": "a secret of many letters",
    }
    return Settings(_env_file=None, **values | changes)


def test_opening_a_deployment_opens_no_part_of_it(tmp_path: Path) -> None:
    """A task that needs the store alone works while the ledger is down, and leaves no database behind."""
    with open_context(settings(tmp_path)) as context:
        assert context.store.bucket == "trashnet"
        assert context.class_counts == {}
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_opened_once_and_closed_with_the_deployment(tmp_path: Path) -> None:
    """The context returns the same ledger every time, and closes it."""
    with open_context(settings(tmp_path)) as context:
        assert context.ledger is context.ledger
        assert context.ledger.count_by_state() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_part_that_is_missing_is_reported_when_it_is_used(tmp_path: Path) -> None:
    """The error comes at the first use, and names the command that creates the part."""
    with open_context(settings(tmp_path)) as context, pytest.raises(UserError, match="trashnet setup"):
        context.clone  # noqa: B018
