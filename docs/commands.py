"""Write docs/commands.md from the help texts of the commands themselves, so that the two cannot drift
apart.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from click import Command, Context, Group

from operations.cli import cli


def pages(command: Command, context: Context) -> Iterator[str]:
    """One section per command, groups opened."""
    if isinstance(command, Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from pages(
                inner,
                Context(inner, info_name=name, parent=context, max_content_width=100, terminal_width=100),
            )
    else:
        yield f"## `{context.command_path}`\n\n```\n{command.get_help(context)}\n```\n"


text = "\n".join(
    [
        "# Commands\n\nWritten by `python docs/commands.py` from the program's own help.\n",
        *pages(cli, Context(cli, info_name="trashnet")),
    ]
)
if "--print" in sys.argv:
    sys.stdout.write(text)
else:
    (Path(__file__).parent / "commands.md").write_text(text, encoding="utf-8")
