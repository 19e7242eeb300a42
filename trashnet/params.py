"""``params.yaml``: each room declares the section it reads, DVC tracks the same file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from trashnet.errors import UserError
from trashnet.files import written_whole


class Params(BaseModel):
    """A room's section of ``params.yaml``: frozen, and a key nobody reads is an error, not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Section = TypeVar("Section", bound=Params)


def load_params(section: str, model: type[Section], path: Path = Path("params.yaml")) -> Section:
    """Read one section of a parameter file into its model. Raises :class:`UserError` that lists every fault."""
    value = _section(section, path)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = "\n".join(f"  {'.'.join(map(str, [section, *e['loc']]))}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: bad parameters:\n{faults}") from None


def load_seed(path: Path = Path("params.yaml")) -> int:
    """Read the seed that all stages share, an integer from 0 to 2**32 - 1."""
    seed = _section("seed", path)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"{path}: `seed` must be a whole number from 0 to 2**32 - 1, not {seed!r}")
    return seed


def set_params(changes: Mapping[str, str], path: Path = Path("params.yaml")) -> None:
    """Change values of a parameter file, each named by its dotted key, and keep the file's comments.

    A value is read as YAML: ``12``, ``none``, ``[0.8, 1.2]``. Raises :class:`UserError` for a key that the file does not have.
    """
    from ruamel.yaml import YAML

    yaml_with_comments = YAML()
    yaml_with_comments.width = 1 << 16  # never fold a line
    try:
        document = yaml_with_comments.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such parameter file. Run this where params.yaml is, or name one with --params.") from None
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = document
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name not in place:
            raise UserError(f"{path}: there is no `{key}` to set")
        place[name] = yaml_with_comments.load(value)
    with written_whole(path) as temporary:
        yaml_with_comments.dump(document, temporary)


def _section(section: str, path: Path) -> Any:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such parameter file. Run this where params.yaml is, or name one with --params.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict) or section not in document:
        raise UserError(f"{path}: section `{section}` is missing")
    return document[section]
