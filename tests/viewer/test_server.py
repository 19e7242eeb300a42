"""The command that starts the app: its arguments, its privacy settings, and the libraries it loads."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trashnet.errors import UserError
from viewer.photos import MAX_BYTES
from viewer.server import ViewerOptions, streamlit_command


def test_options_survive_the_command_line() -> None:
    """The app reads the options that were put behind ``--``, spaces included."""
    options = ViewerOptions(
        *(Path("a b"), Path("models"), Path("cards"), Path("predictions"), Path("t.yaml")),
        params=Path("--p.yaml"),
        environment=Path("stack.env"),
        note="read from its folder",
    )
    line = streamlit_command(options)
    assert ViewerOptions.parse(line[line.index("--") + 1 :]) == options


def test_options_that_are_not_given_are_the_pipelines_folders() -> None:
    """The app finds all files if it is started in the repository without arguments."""
    assert ViewerOptions.parse(["--data", "elsewhere"]) == ViewerOptions(
        Path("elsewhere"), Path("build/models"), Path("build/scorecards")
    )


def test_an_unknown_argument_is_an_error_in_plain_words() -> None:
    """The page shows it; argparse alone would leave the browser waiting."""
    with pytest.raises(UserError, match="unrecognized arguments: --modles"):
        ViewerOptions.parse(["--modles", "x"])


def test_the_app_listens_on_loopback_and_sends_no_telemetry() -> None:
    """This holds for our command and for Streamlit's own, which reads the configuration beside the app."""
    assert "--server.address=127.0.0.1" in streamlit_command(ViewerOptions())
    assert "--browser.gatherUsageStats=false" in streamlit_command(ViewerOptions())
    configuration = tomllib.loads((REPOSITORY / "viewer/.streamlit/config.toml").read_text(encoding="utf-8"))
    assert configuration["browser"]["gatherUsageStats"] is False
    assert configuration["server"]["address"] == "127.0.0.1"
    assert configuration["logger"]["hideWelcomeMessage"] is True, "it also hides Streamlit's advertisements"
    assert configuration["server"]["maxUploadSize"] * 2**20 == MAX_BYTES


def test_the_app_loads_neither_torch_nor_tensorflow_nor_prefect() -> None:
    """A computer that only runs the viewer needs no training library."""
    program = (
        "import sys; import viewer.photo_page, viewer.gate_page, viewer.scorecard_page; "
        "print(*{name.split('.')[0] for name in sys.modules} & {'torch', 'tensorflow', 'keras', 'prefect', "
        "'fiftyone', 'dvc'})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert loaded.stdout.split() == []
