"""The one error that a person is meant to read."""


class ImageError(Exception):
    """Something a person can fix.

    `thing` is what failed, `reason` why, `fix` what to do about it.
    """

    def __init__(self, thing: str, reason: str, fix: str) -> None:
        super().__init__(f"{thing}: {reason}\n  Fix: {fix}")
        self.thing = thing
        self.reason = reason
        self.fix = fix
