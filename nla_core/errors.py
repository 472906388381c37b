"""Every refusal of the project, in one form: what, why, and what to do instead.

Knows the wording contract of errors and the exit codes of the command line. Knows nothing of who
raises them. The decision a reader would question: one class with three sentences instead of a tree
of exception types; callers show errors to people far more often than they branch on their type.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_CHECK_FAILED = 1
EXIT_BAD_INPUT = 2


class NLAError(Exception):
    """Bad input or a broken environment, explained to the person who can mend it.

    ``what`` says what was refused, ``why`` the mechanical reason with the value found, ``fix``
    the call, file or setting that works instead. ``str(error)`` is one paragraph of the three.
    """

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        self.what, self.why, self.fix = what.rstrip("."), why.rstrip("."), fix.rstrip(".")
        super().__init__(f"{self.what}. {self.why}. {self.fix}.")

    def __reduce__(self) -> tuple[object, tuple[str, str, str]]:
        return _rebuild, (self.what, self.why, self.fix)


def _rebuild(what: str, why: str, fix: str) -> NLAError:
    return NLAError(what, why=why, fix=fix)


class Cancelled(Exception):
    """Raised inside long work when its caller asked it to stop; what is finished is kept."""
