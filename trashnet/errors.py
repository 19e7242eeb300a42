"""The one exception whose message is meant for a person."""

import re

URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


class UserError(Exception):
    """Something that the user can fix: the message names the thing, what is wrong with it, and what to do.

    The command line prints the message alone and exits with status 1. Any other exception is a bug and keeps
    its traceback. Credentials in a URL are masked: a message ends up in logs and on screens.
    """

    def __init__(self, message: object = "") -> None:
        """Mask what must not be shown in the message."""
        super().__init__(mask_credentials(str(message)))


def mask_credentials(text: str) -> str:
    """The text with the user and password of every URL replaced.

    >>> mask_credentials("fatal: https://me:ghp_1@example.org/x.git not found")
    'fatal: https://***@example.org/x.git not found'
    """
    return URL_CREDENTIALS.sub("***@", text)
