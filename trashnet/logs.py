"""How processes log: in words for people, or with ``TRASHNET_LOG=json`` as one JSON object a line.

Every object has ``timestamp`` (ISO, UTC), ``level``, ``logger`` and ``event``; where a flow runs,
``flow_run_id`` and what else Prefect knows of the run; where something was raised, ``exception``. Each entry
point of ours calls :func:`configure_logs`. Processes that Prefect starts read :data:`PREFECT_CONFIGURATION`,
which names :class:`JsonFormatter`.

The result of a command, such as a table, is no log and stays as it is.
"""

import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from trashnet.errors import UserError, mask_credentials

VARIABLE = "TRASHNET_LOG"
LogFormat = Literal["text", "json"]
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
PREFECT_CONFIGURATION = Path(__file__).parents[1] / "flows" / "json_logging.yml"
RUN_FIELDS = ("flow_run_id", "flow_run_name", "flow_name", "task_run_id", "task_run_name")
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"  # that a worker sets for the process of a run
QUIET_LOGGERS = ("httpx", "httpcore")  # they log every request


def log_format() -> LogFormat:
    """What :data:`VARIABLE` says; text unless it is set. Raises :class:`UserError` for anything else."""
    value = os.environ.get(VARIABLE) or "text"
    for known in FORMATS:
        if value == known:
            return known
    raise UserError(
        f"{VARIABLE}={value!r}: logs are written as `text` or as `json`; set one of these, or nothing"
    )


def configure_logs(level: int = logging.WARNING, *, text: str | None = None) -> None:
    """Let this process log to standard error from ``level`` on.

    As JSON that includes warnings and an exception that ends the process. As text ``text`` is the format;
    without one nothing is changed. Raises :class:`UserError` for a bad value of :data:`VARIABLE`.
    """
    is_json = log_format() == "json"
    if is_json:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=level, handlers=[handler], force=True)
        log_what_python_prints()
    elif text is not None:
        logging.basicConfig(level=level, format=text)
    if is_json or text is not None:
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)


def prefect_log_variables() -> dict[str, str]:
    """What lets a process of Prefect's log as this one does."""
    return {"PREFECT_LOGGING_SETTINGS_PATH": str(PREFECT_CONFIGURATION)} if log_format() == "json" else {}


def log_what_python_prints() -> None:
    """Where JSON is chosen, log warnings and the exception that ends the process instead of printing them."""
    if log_format() == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_exception


def json_line(event: str, *, logger: str, level: str = "info") -> str:
    """The line of JSON for something that is shown to a person where text is chosen."""
    import json

    fields = {"timestamp": datetime.now(UTC).isoformat(), "level": level, "logger": logger}
    return json.dumps({"event": mask_credentials(event), **fields})


def error_line(message: str) -> str:
    """The line that tells why a command ends. ``message`` may be about :data:`VARIABLE` itself."""
    if os.environ.get(VARIABLE) == "json":
        return json_line(message, logger="trashnet", level="error")
    return f"trashnet: {message}"


class JsonFormatter(logging.Formatter):
    """Formats any library's records as lines of JSON."""

    def __init__(self, **_: Any) -> None:
        """Prefect's configuration may pass arguments that mean nothing here."""
        super().__init__()
        import structlog  # which a process that writes text does not need

        shared: list[Any] = [
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_run,
        ]
        self._formatter = structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _mask,
                structlog.processors.JSONRenderer(),
            ],
        )

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        return self._formatter.format(record)


def _add_run(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Which flow run this is: of the record, which Prefect labels, else of the process."""
    record = event["_record"]
    found = {name: str(value) for name in RUN_FIELDS if (value := getattr(record, name, None)) is not None}
    if "flow_run_id" not in found and (run := os.environ.get(RUN_VARIABLE)):
        found["flow_run_id"] = run
    return {**event, **found}


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    return {
        name: mask_credentials(value) if isinstance(value, str) else value for name, value in event.items()
    }


def _log_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    logging.getLogger("trashnet").critical("%s", error, exc_info=(kind, error, traceback))
