"""How the fetcher's parts say that a body gives no picture: a failure's name and one sentence."""

from breadth.loaders.errors import BreadthError


class Refused(BreadthError):
    """A body is given no picture; ``failure`` is a name in ``failures.FAILURES``."""

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure
