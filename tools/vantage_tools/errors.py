"""The one error that a user can mend; the command prints it without a traceback and exits with 1."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can fix: what is wrong, and how to fix it.

    The command prints both, the fix on a line of its own.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\nFix: {self.fix}" if self.fix else self.problem
