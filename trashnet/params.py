"""``params.yaml``: each room declares the section it reads, DVC tracks the same file."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from trashnet.errors import UserError


class Params(BaseModel):
    """A room's section of ``params.yaml``: frozen, and a key nobody reads is an error, not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Section = TypeVar("Section", bound=Params)


def load_params(section: str, model: type[Section], path: Path = Path("params.yaml")) -> Section:
    """Read one section of a parameter file into its model. Raises :class:`UserError` that lists every fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such parameter file. Run this where params.yaml is, or name one with --params.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if section not in document:
        raise UserError(f"{path}: section `{section}` is missing")
    try:
        return model.model_validate(document[section])
    except ValidationError as error:
        faults = "\n".join(f"  {section}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: bad parameters:\n{faults}") from None
