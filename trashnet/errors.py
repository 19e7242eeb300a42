"""The one exception whose message is meant for a person."""


class UserError(Exception):
    """Something that the user can fix: the message names the thing, what is wrong with it, and what to do.

    The command line prints the message alone and exits with status 1. Any other exception is a bug and keeps
    its traceback.
    """
