"""Addresses and secrets, read from the environment: what differs between a laptop and a team's machines.

Numbers are in ``params.yaml``.
"""

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from trashnet.errors import UserError

STACK_FOLDER = Path(".trashnet")  # where the embedded stack keeps its data, logs and credentials
STACK_ENVIRONMENT_FILE = STACK_FOLDER / "stack.env"
SECRET_HEADER = "X-Trashnet-Secret"  # authenticates Label Studio's webhook, which has no signature of its own
WEBHOOK_PATH = "/label-studio"  # of the event gateway, for that webhook

# Variables that were renamed in version 0.2: old name -> new name.
RENAMED_VARIABLES = {
    "TRASHNET_DOORBELL_URL": "TRASHNET_GATEWAY_URL",
    "TRASHNET_DOORBELL_SECRET": "TRASHNET_GATEWAY_SECRET",
}


class Settings(BaseSettings):
    """One deployment of the flywheel.

    Every field is read from a variable ``TRASHNET_<FIELD>``; the embedded stack writes the variables to a
    file.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRASHNET_", env_file=STACK_ENVIRONMENT_FILE, extra="ignore", frozen=True
    )

    s3_endpoint: str = Field(pattern=r"^https?://[^/]+$")
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_region: str = "us-east-1"  # without one some stores answer with an error instead of "no such bucket"
    s3_bucket: str = "trashnet"
    s3_notifies: bool = False  # whether the store notifies the event gateway, which else polls the inbox
    ledger_url: str = f"sqlite:///{STACK_FOLDER}/ledger.sqlite"
    label_studio_url: str = Field(pattern=r"^https?://[^/]+")
    label_studio_token: SecretStr
    label_studio_project: str = "TrashNet"
    repository: str = "."  # the origin of the flywheel's clone: a path or a git URL
    clone: Path = (
        STACK_FOLDER / "clone"
    )  # the flywheel's own clone of the repository: turns are committed there
    gateway_url: str = Field(pattern=r"^https?://[^/]+")
    gateway_secret: SecretStr = Field(min_length=16)


def load_settings(environment_file: Path = STACK_ENVIRONMENT_FILE) -> Settings:
    """Read the settings; the environment wins over the stack's file.

    Raises :class:`UserError` that lists every variable that is missing, malformed or has a new name.
    """
    _refuse_renamed_variables(environment_file)
    try:
        return Settings(_env_file=environment_file)  # type: ignore[call-arg]
    except ValidationError as error:
        # Without the input, which may be a secret.
        messages = [f"  {_variable_of(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False)]
        remedy = (
            "`trashnet up` starts an embedded stack that sets them all; "
            "a team sets them in the environment (deploy/.env.example)."
        )
        raise UserError("\n".join(["the flywheel's settings are not complete:", *messages, remedy])) from None


def _refuse_renamed_variables(environment_file: Path) -> None:
    lines = environment_file.read_text(encoding="utf-8").splitlines() if environment_file.is_file() else []
    present = os.environ.keys() | {line.partition("=")[0] for line in lines}
    if renamed := [f"  {old} is {new} now" for old, new in RENAMED_VARIABLES.items() if old in present]:
        remedy = f"Rename them in the environment or in {environment_file} (`trashnet up` renames its own)."
        raise UserError("\n".join(["some settings have new names:", *renamed, remedy]))


def _variable_of(location: tuple[int | str, ...]) -> str:
    return "TRASHNET_" + "_".join(map(str, location)).upper()
