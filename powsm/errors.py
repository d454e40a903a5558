"""The base of every error that is the user's to mend.

A command shows such an error, and OSError, as one line; anything else is a fault of
the program and keeps its traceback.
"""


class PowsmError(ValueError):
    """What was found, where, what was expected and what to do, in one line."""
