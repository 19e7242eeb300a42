"""The one exception that reaches a person as plain words."""


class UserError(Exception):
    """Something the person at the keyboard can mend: names the thing, what is wrong with it, and what to do.

    The command line prints the message alone and exits 1; anything else is a defect of ours and keeps its
    traceback.
    """
