"""The group that all commands belong to, and how its errors are printed."""

import errno
import sys

import click

from trashnet.errors import UserError
from trashnet.logs import configure_logs, error_line


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="trashnet-flywheel")
def cli() -> None:
    """From a bin's unsure frames to better bins: dataset, two detectors, scorecards, a Coral-ready model."""


def main() -> None:
    """Run the command line; a :class:`UserError` is printed in plain words and exits 1."""
    try:
        configure_logs()
        cli(prog_name="trashnet")
    except UserError as error:
        click.echo(error_line(str(error)), err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = f"{error.filename or 'the disk'}: {error.strerror}"
        click.echo(error_line(f"{what}. Make room and run this again: nothing is half-written."), err=True)
        sys.exit(1)
