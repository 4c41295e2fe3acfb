"""The one kind of error a person is meant to read: what was asked, what there was, what would work.

Commands print it as one line and exit with code 2; notebooks show it as any other exception.
"""


class UserError(ValueError):
    """Input that cannot be served, said in one line."""
