"""Credentials of the flywheel's origin: in a file that only its owner can read, where git asks for them.

Within the address they would stand on the command line of git and of each of its helpers.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit


@dataclass(frozen=True)
class CredentialHelper:
    """git's setting ``key`` for one server, and the command that it should be after an empty value.

    The empty value keeps git from handing the credentials to the user's own helpers.
    """

    key: str
    command: str


def split_credentials(origin: str) -> tuple[str, tuple[str, str] | None]:
    """An origin's address without credentials, and its user and password if it is a web address that has any.

    >>> split_credentials("https://me:ghp_1@example.org/x.git")
    ('https://example.org/x.git', ('me', 'ghp_1'))
    >>> split_credentials("git@example.org:x.git")
    ('git@example.org:x.git', None)
    """
    parts = urlsplit(origin)
    userinfo, at, host = parts.netloc.rpartition("@")
    if parts.scheme not in {"http", "https"} or not at:
        return origin, None
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password))


def keep_credentials(clone: Path, address: str, credentials: tuple[str, str]) -> CredentialHelper:
    """Write the credentials beside the clone; the helper that hands them to git for this server alone."""
    path = clone.absolute().with_name(f"{clone.name}.credentials")
    user, password = credentials
    part = path.with_name(f".{path.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"username={user}\npassword={password}\n")
    part.replace(path)
    parts = urlsplit(address)
    # git also tells its helpers to store and to erase credentials: this one only answers.
    command = f'!f() {{ test "$1" != get || cat {shlex.quote(str(path))}; }}; f'
    return CredentialHelper(f"credential.{parts.scheme}://{parts.netloc}.helper", command)
