"""The house's own rules: who may import whom, and that what a person reads agrees with what the program
does.
"""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from click import Command, Context, Group

from operations.cli import cli
from tests.conftest import REPOSITORY

ROOMS = [
    "ingest",
    "selection",
    "labeling",
    "dataset",
    "synthetic",
    "training",
    "evaluation",
    "export",
    "edge",
    "flows",
    "viewer",
    "operations",
]
HEAVY_HOMES = {
    "tensorflow": ("training/ssd", "export"),
    "keras": ("training/ssd", "export"),
    "torch": ("training/efficientdet", "export"),
    "effdet": ("training/efficientdet", "export"),
    "prefect": ("flows", "operations"),
}


def modules() -> list[Path]:
    """Every module of the product."""
    folders = [REPOSITORY / name for name in [*ROOMS, "trashnet"]]
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The dotted names that a module imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_a_room_imports_only_the_shared_words_and_the_rooms_before_it(path: Path) -> None:
    """A frame walks through the rooms in one direction, and so do imports, without an exemption."""
    room = path.relative_to(REPOSITORY).parts[0]
    later = ROOMS if room == "trashnet" else ROOMS[ROOMS.index(room) + 1 :]
    assert not {name.split(".")[0] for name in imported(path)} & set(later)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_a_heavy_library_is_imported_only_in_the_rooms_it_was_bought_for(path: Path) -> None:
    """What judges, serves and shows models needs neither torch nor tensorflow."""
    here = path.relative_to(REPOSITORY).as_posix()
    for library in {name.split(".")[0] for name in imported(path)} & set(HEAVY_HOMES):
        assert here.startswith(HEAVY_HOMES[library]), f"{here} imports {library}"


def test_asking_for_help_imports_nothing_heavy() -> None:
    """`trashnet --help` answers at once because no command's libraries are loaded before it runs."""
    program = (
        "import sys; from operations.cli import cli; cli(['--help'], standalone_mode=False); "
        "print(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stderr.split()
    assert not set(loaded) & {
        "numpy",
        "pyarrow",
        "torch",
        "tensorflow",
        "cv2",
        "fiftyone",
        "streamlit",
        "dvc",
    }


def commands(group: Command, context: Context) -> list[tuple[str, Command]]:
    """Every command by its full name, groups opened."""
    if not isinstance(group, Group):
        return [(context.command_path, group)]
    return [
        item
        for name in group.list_commands(context)
        if (command := group.get_command(context, name)) is not None
        for item in commands(command, Context(command, info_name=name, parent=context))
    ]


def test_every_command_is_documented_with_the_help_it_prints() -> None:
    """docs/commands.md holds each command's own help text, word for word.

    `python docs/commands.py` writes it anew.
    """
    page = (REPOSITORY / "docs/commands.md").read_text(encoding="utf-8")
    fresh = subprocess.run(
        [sys.executable, REPOSITORY / "docs/commands.py", "--print"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    ).stdout
    assert page == fresh
    for name, _ in commands(cli, Context(cli, info_name="trashnet")):
        assert f"## `{name}`" in page


def dotted(path: Path) -> str:
    """A module's name as it is imported."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not at the top, in a function, or for types alone; a front door may import its own room's parts."""
    names = {dotted(path): path for path in modules()}
    doors = {name for name, path in names.items() if path.name == "__init__.py"}
    graph = {
        name: {other for other in imported(path) if other in names and other not in doors} - {name}
        for name, path in names.items()
        if name not in doors
    }
    order = TopologicalSorter(graph)
    order.prepare()  # raises CycleError with the circle


NOUNS_IN_ING = {"box_drawing", "drawing", "mapping", "retraining", "sampling", "scoring"}


def test_modules_are_called_by_nouns() -> None:
    """No module is named for a deed in progress; the few words of that form are the field's own nouns."""
    gerunds = {path.stem for path in modules() if path.stem.endswith("ing")}
    assert gerunds <= NOUNS_IN_ING


def rows_of_where_is_what() -> list[str]:
    """The places that the table of docs/architecture.md names, ``path:Name`` each."""
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Where is what")[2].partition("\n## ")[0]
    return re.findall(r"`([\w/.]+\.\w+(?::\w+)?)`", table)


def test_the_table_of_where_is_what_has_about_fifteen_rows() -> None:
    """A table that names nothing would hold whatever the code does."""
    assert len(rows_of_where_is_what()) >= 15


@pytest.mark.parametrize("where", rows_of_where_is_what())
def test_what_the_architecture_names_is_there(where: str) -> None:
    """Each file exists, and defines the function, class or constant named behind the colon."""
    path, _, name = where.partition(":")
    assert (REPOSITORY / path).is_file()
    if name:
        body = ast.parse((REPOSITORY / path).read_text(encoding="utf-8")).body
        defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
        annotated = [node.target for node in body if isinstance(node, ast.AnnAssign)]
        defined |= {target.id for target in [*targets, *annotated] if isinstance(target, ast.Name)}
        assert name in defined


def test_only_the_ledger_speaks_sql() -> None:
    """No module outside trashnet/ledger imports SQLAlchemy or the ledger's tables."""
    for path in modules():
        here = path.relative_to(REPOSITORY).as_posix()
        if not here.startswith("trashnet/ledger/"):
            names = imported(path)
            assert not {
                n for n in names if n.split(".")[0] == "sqlalchemy" or n == "trashnet.ledger.tables"
            }, here
