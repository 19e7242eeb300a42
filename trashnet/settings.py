"""Addresses and secrets, from the environment: what differs between a laptop and a team's machines. Numbers are in ``params.yaml``."""

import os
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from trashnet.errors import UserError

STACK = Path(".trashnet")  # what the embedded stack keeps: its data, its logs, its credentials
STACK_ENVIRONMENT = STACK / "stack.env"
SECRET_HEADER = "X-Trashnet-Secret"  # Label Studio signs nothing: the event gateway knows its webhook by this
WEBHOOK_PATH = "/label-studio"  # of the event gateway, for that webhook

# Variables that had another name before version 0.2, each with the one that it has now.
RENAMED_VARIABLES = {
    "TRASHNET_DOORBELL_URL": "TRASHNET_GATEWAY_URL",
    "TRASHNET_DOORBELL_SECRET": "TRASHNET_GATEWAY_SECRET",
}


class Settings(BaseSettings):
    """One deployment of the context. Every field is a variable ``TRASHNET_<FIELD>``; the embedded stack writes them to a file."""

    model_config = SettingsConfigDict(
        env_prefix="TRASHNET_", env_file=STACK_ENVIRONMENT, extra="ignore", frozen=True
    )

    s3_endpoint: str = Field(pattern=r"^https?://[^/]+$")
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_region: str = "us-east-1"  # without one some stores raise for a missing bucket instead of answering that it is missing
    s3_bucket: str = "trashnet"
    s3_notifies: bool = False  # whether the store tells the event gateway of uploads; if not, the event gateway watches the inbox itself
    ledger_url: str = f"sqlite:///{STACK}/ledger.sqlite"
    label_studio_url: str = Field(pattern=r"^https?://[^/]+")
    label_studio_token: SecretStr
    label_studio_project: str = "TrashNet"
    repository: str = (
        "."  # what the flywheel's clone is made from, and its branch pushed to: a path or a git URL
    )
    clone: Path = STACK / "clone"  # the flywheel's own clone of this repository: turns are committed there
    gateway_url: str = Field(pattern=r"^https?://[^/]+")
    gateway_secret: SecretStr = Field(min_length=16)


def load_settings(environment_file: Path = STACK_ENVIRONMENT) -> Settings:
    """Read the settings; the environment wins over the stack's file. Raises :class:`UserError` that lists what is missing or malformed."""
    _refuse_renamed_variables(environment_file)
    try:
        return Settings(_env_file=environment_file)  # type: ignore[call-arg]
    except ValidationError as error:
        faults = "\n".join(
            f"  {_variable(fault)}: {fault['msg']}" for fault in error.errors(include_input=False)
        )
        raise UserError(
            f"the flywheel's settings are not complete:\n{faults}\n`trashnet up` starts an embedded stack that sets them all; "
            "a team sets them in the environment (deploy/.env.example)."
        ) from None


def _refuse_renamed_variables(environment_file: Path) -> None:
    in_file = environment_file.read_text(encoding="utf-8").splitlines() if environment_file.is_file() else []
    present = os.environ.keys() | {line.partition("=")[0] for line in in_file}
    if renamed := [f"  {old} is {new} now" for old, new in RENAMED_VARIABLES.items() if old in present]:
        raise UserError(
            "some settings have new names; rename them in the environment or in "
            f"{environment_file}:\n" + "\n".join(renamed)
        )


def _variable(fault: Any) -> str:
    return "TRASHNET_" + "_".join(map(str, fault["loc"])).upper()
