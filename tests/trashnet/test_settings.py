"""Settings from the environment and from the embedded stack's file."""

from pathlib import Path

import pytest

from trashnet.errors import UserError
from trashnet.settings import RENAMED_VARIABLES, load_settings

COMPLETE = {
    "TRASHNET_S3_ENDPOINT": "http://127.0.0.1:9000",
    "TRASHNET_S3_ACCESS_KEY": "key",
    "TRASHNET_S3_SECRET_KEY": "s3-secret-word",
    "TRASHNET_LABEL_STUDIO_URL": "http://127.0.0.1:8080",
    "TRASHNET_LABEL_STUDIO_TOKEN": "token-secret-word",
    "TRASHNET_GATEWAY_URL": "http://127.0.0.1:4300",
    "TRASHNET_GATEWAY_SECRET": "gateway-secret-word",
}


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    """What the embedded stack writes."""
    path = tmp_path / "stack.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in COMPLETE.items()))
    return path


def test_the_stack_s_file_is_enough(stack_file: Path) -> None:
    """It holds everything that has no sensible default."""
    settings = load_settings(stack_file)
    assert settings.s3_endpoint == COMPLETE["TRASHNET_S3_ENDPOINT"]
    assert settings.s3_secret_key.get_secret_value() == COMPLETE["TRASHNET_S3_SECRET_KEY"]


def test_the_environment_wins_over_the_file(stack_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A team's own store is named in the environment, whatever a stack left behind."""
    monkeypatch.setenv("TRASHNET_S3_ENDPOINT", "https://s3.example.org")
    assert load_settings(stack_file).s3_endpoint == "https://s3.example.org"


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    """One message lists all variables, and what sets them."""
    with pytest.raises(UserError, match="trashnet up") as caught:
        load_settings(tmp_path / "none.env")
    assert all(name in str(caught.value) for name in COMPLETE)


def test_a_malformed_value_is_named_and_no_secret_is_shown(
    stack_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says which variable is wrong; neither it nor the settings' own text contain a secret."""
    settings = load_settings(stack_file)
    monkeypatch.setenv("TRASHNET_S3_ENDPOINT", "127.0.0.1:9000")
    monkeypatch.setenv("TRASHNET_GATEWAY_SECRET", "short-word")
    with pytest.raises(UserError, match="TRASHNET_S3_ENDPOINT") as caught:
        load_settings(stack_file)
    assert "TRASHNET_GATEWAY_SECRET" in str(caught.value)
    for shown in (str(caught.value), str(settings), repr(settings)):
        assert "secret-word" not in shown
        assert "short-word" not in shown


@pytest.mark.parametrize(("old", "new"), RENAMED_VARIABLES.items())
def test_an_old_variable_in_the_environment_gives_an_error_that_names_the_new_one(
    stack_file: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    """Ignoring it would silently use the stack's own value instead of the one that was set."""
    monkeypatch.setenv(old, "http://127.0.0.1:4300")
    with pytest.raises(UserError, match=f"{old} is {new} now"):
        load_settings(stack_file)


def test_every_old_variable_in_the_stack_s_file_is_named_at_once(stack_file: Path) -> None:
    """The message says what to rename, in which file, and shows no value."""
    stack_file.write_text(stack_file.read_text().replace("_GATEWAY_", "_DOORBELL_"))
    with pytest.raises(UserError) as caught:
        load_settings(stack_file)
    for old, new in RENAMED_VARIABLES.items():
        assert f"{old} is {new} now" in str(caught.value)
    assert str(stack_file) in str(caught.value)
    assert "secret-word" not in str(caught.value)
