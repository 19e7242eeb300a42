"""The stack's log as JSON."""

from pathlib import Path

import pytest

from operations.stack.commands import down
from operations.stack.run_state import read_environment_file
from tests.flows.test_logs import parse
from tests.operations.test_stack import SmallStack, is_up


@pytest.mark.heavy
def test_every_line_of_the_stack_is_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its start over its addresses to its end; none shows a credential."""
    monkeypatch.setenv("TRASHNET_LOG", "json")
    stack = SmallStack(tmp_path)
    try:
        up = stack.up()
        stack.until(is_up)
    finally:
        down(stack.paths)
    assert up.wait() == 0
    text = stack.log.read_text()
    lines = parse(text)
    assert {line["logger"] for line in lines} == {"stack"}
    events = [line["event"] for line in lines]
    assert events[-1] == "stopped"
    assert any(event.startswith("everything is up after") for event in events)
    assert any(event.startswith("Label Studio") for event in events)
    credentials = read_environment_file(stack.paths.environment)
    secrets = [
        value for name, value in credentials.items() if name.endswith(("KEY", "WORD", "TOKEN", "SECRET"))
    ]
    assert len(secrets) >= 5
    assert not [secret for secret in secrets if secret in text]
