"""Why a check says no: three exceptions whose text is all that a student sees.

A failing check must read as a sentence about the student's code, not as a traceback of ours. So each of these
shows itself in Jupyter through IPython's `_render_traceback_`, as its own text; and what a student's code
raised arrives as plain names and text, never as the exception object, because that object may lie on the
other side of a sandbox.

Used by every lab.
"""


class CheckFailed(AssertionError):
    """A check's verdict: the message names what was asked, what came back and, if it can, the misconception."""

    def _render_traceback_(self) -> list[str]:
        """Lines that Jupyter shows in place of a traceback."""
        return str(self).splitlines()


class StudentError(CheckFailed):
    """The student's code raised, is missing, cannot be called so, or gave back something that is not plain
    data.

    `kinds` are the names of the raised exception's classes, from its own class up; empty when nothing was
    raised.
    """

    def __init__(self, message: str, kinds: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kinds = kinds


class NotWritten(StudentError):
    """The student's code is still a stub: it raised NotImplementedError."""


class Unwritten(NotImplementedError):
    """What Jupyter shows for a stub: NotImplementedError, in one line."""

    def _render_traceback_(self) -> list[str]:
        """Lines that Jupyter shows in place of a traceback."""
        return [str(self)]


Unwritten.__name__ = Unwritten.__qualname__ = "NotImplementedError"  # the name a student and nbval read
