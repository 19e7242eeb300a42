"""Starts and stops the app: ``streamlit run viewer/app.py -- --data data --models build/models ...``."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from trashnet.errors import UserError
from trashnet.processes import die_with_parent, stop_process
from trashnet.settings import STACK_ENVIRONMENT_FILE

# Asked to stop, Streamlit's uvicorn waits until every open page has closed its connection; Streamlit sets no
# timeout_graceful_shutdown. The app has nothing to save, so it is killed after this time.
STOP_GRACE_SECONDS = 3.0

APP = Path(__file__).with_name("app.py")


@dataclass(frozen=True)
class ViewerOptions:
    """The paths that the app reads. None has to exist: the app says what is missing and shows the rest.

    ``environment``: the flywheel's settings; variables win over the file. ``note``: what the sidebar calls
    the flywheel's store.
    """

    data: Path = Path("data")
    models: Path = Path("build/models")
    scorecards: Path = Path("build/scorecards")
    predictions: Path = Path("build/predictions")
    taxonomy: Path = Path("taxonomy.yaml")
    params: Path = Path("params.yaml")
    environment: Path = STACK_ENVIRONMENT_FILE
    note: str = ""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "ViewerOptions":
        """Read the arguments after ``--``; each is ``--<field> <value>``.

        Raises :class:`UserError` for others.
        """
        parser = _Parser(prog="streamlit run viewer/app.py --", add_help=False)
        for name, field in cls.__dataclass_fields__.items():
            parser.add_argument(f"--{name}", type=type(field.default), default=field.default)
        return cls(**vars(parser.parse_args(arguments)))

    def arguments(self) -> list[str]:
        """The arguments that :meth:`parse` reads back."""
        return [
            f"--{name}={value}" for name in self.__dataclass_fields__ if (value := str(getattr(self, name)))
        ]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse would exit, and the page in the browser would wait for ever
        raise UserError(f"{message}. {self.format_usage().strip()}")


def streamlit_command(
    options: ViewerOptions, address: str = "127.0.0.1", port: int = 8501, *, browser: bool = True
) -> list[str]:
    """The command line that serves the app without telemetry; ``browser``: whether it opens a browser."""
    flags = {
        "server.address": address,
        "server.port": port,
        "server.headless": str(not browser).lower(),
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",  # else Streamlit offers its own cloud in the corner
        "server.showEmailPrompt": "false",  # Streamlit would ask at the first start, and wait
    }
    streamlit = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(APP),
        *(f"--{key}={value}" for key, value in flags.items()),
    ]
    return [*streamlit, "--", *options.arguments()]


def run_viewer(
    data: Path = Path("data"),
    build: Path = Path("build"),
    taxonomy_file: Path = Path("taxonomy.yaml"),
    address: str = "127.0.0.1",
    port: int = 8501,
    *,
    browser: bool = True,
    environment_file: Path = STACK_ENVIRONMENT_FILE,
    variables: Mapping[str, str] | None = None,
    note: str = "",
) -> None:
    """Serve the app until Ctrl-C, whatever pages are open, and open it in a browser.

    ``environment_file``: the flywheel's settings; ``variables``: added to the app's environment, and win over
    the file; ``note``: see :class:`ViewerOptions`.

    Raises :class:`UserError` if it cannot be served.
    """
    options = ViewerOptions(
        data,
        build / "models",
        build / "scorecards",
        build / "predictions",
        taxonomy_file,
        environment=environment_file,
        note=note,
    )
    print(f"Viewer: http://{address}:{port} (Ctrl-C ends it)", flush=True)
    process = subprocess.Popen(
        [*die_with_parent(), *streamlit_command(options, address, port, browser=browser)],
        env=os.environ | dict(variables or {}),
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        stop_process(process, STOP_GRACE_SECONDS)
        return
    if code:
        raise UserError(
            f"the viewer stopped with exit status {code}; is port {port} taken? Choose another with --port."
        )
