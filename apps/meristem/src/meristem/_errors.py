"""Errors that a user can mend: one line, exit code 2."""


class UsageError(Exception):
    """A value the user gave cannot be used; the message names it, the rule and the mend."""
