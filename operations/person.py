"""Who gives a command: for records that say who wanted something."""

import getpass
import socket


def present_person() -> str:
    """The user's name and the machine's."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
