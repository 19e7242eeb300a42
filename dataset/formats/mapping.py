"""The mapping from a data set's category names to the classes of the taxonomy."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


def load_mapping(path: Path) -> dict[str, str | None]:
    """Read a mapping from category names to classes: a YAML or JSON object, or a CSV file of two columns.

    A null, or an empty second column, leaves the category's boxes out. A first CSV row ``theirs,ours`` is a
    heading.

    Returns:
        The class's name by category name, ``None`` for a category to leave out.

    Raises:
        UserError: If the file cannot be read or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the mapping cannot be read: {error}") from None
    if path.suffix.lower() == ".csv":
        return dict(_csv_pairs(text, path))
    try:
        document = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: the mapping does not parse: {error}") from None
    if not isinstance(document, dict) or not all(
        value is None or isinstance(value, str) for value in document.values()
    ):
        raise UserError(
            f"{path}: a mapping has lines `their name: our name`, or `their name: null` to leave one out"
        )
    return {str(category).strip(): class_name for category, class_name in document.items()}


def _csv_pairs(text: str, path: Path) -> Iterator[tuple[str, str | None]]:
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells == ["theirs", "ours"]):
            continue
        if len(cells) != 2 or not cells[0]:
            raise UserError(
                f"{path}: line {number}: a mapping has two columns, their name and our name "
                "(empty to leave the category out)"
            )
        yield cells[0], cells[1] or None


def map_categories(
    categories: Iterable[str], mapping: Mapping[str, str | None], taxonomy: Taxonomy
) -> tuple[dict[str, int | None], list[str]]:
    """Find the class of each category: by the mapping, else by the exact name, else ignoring case.

    Returns:
        The class id by category name, ``None`` for a category to leave out; an unknown category is missing.
        And the names in the mapping that are no category, sorted.

    Raises:
        UserError: If the mapping names a class that the taxonomy lacks.
    """
    id_of = {name.casefold(): i for name, i in reversed(taxonomy.id_of.items())} | taxonomy.id_of
    targets = {name for name in mapping.values() if name is not None}
    if unknown := sorted(name for name in targets if name not in id_of and name.casefold() not in id_of):
        raise UserError(
            f"the mapping names classes that the taxonomy does not have: {', '.join(map(repr, unknown))}"
        )
    folded = {name.casefold().strip(): target for name, target in mapping.items()}
    used: set[str] = set()
    class_of: dict[str, int | None] = {}
    for category in categories:
        key = category.casefold().strip()
        target: str | None = category.strip()
        if category in mapping or key in folded:
            target = mapping[category] if category in mapping else folded[key]
            used.add(key)
        if target is None:
            class_of[category] = None
        elif target in id_of or target.casefold() in id_of:
            class_of[category] = id_of[target] if target in id_of else id_of[target.casefold()]
    return class_of, sorted(name for name in mapping if name.casefold().strip() not in used)
