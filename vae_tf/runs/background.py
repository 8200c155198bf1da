"""What is written beside the training that goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """A thread that does one thing at a time, in order. What went wrong in it
    is raised where it is waited for, and nothing further is done then.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def start(self, function: Callable, *args) -> None:
        """Calls the function once what was started before has ended."""
        self.wait()
        self._pending = self._thread.submit(function, *args)

    def wait(self) -> None:
        """Until what was started has ended; raises what that raised, once."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
