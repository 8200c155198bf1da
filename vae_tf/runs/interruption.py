"""Ctrl-C and SIGTERM while a run trains: first what was reached is kept."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Training was asked to end, and what it had reached is kept.

    Attributes:
      exit_code: of a process that a signal ends, 128 and its number.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Asked:
    """Whether a signal has asked to end, and which."""

    signal: int | None = None


@contextlib.contextmanager
def watched() -> Iterator[Asked]:
    """While this lasts, the first Ctrl-C or SIGTERM asks to end, and a second
    one ends at once; in threads other than the main one, which hear no signals,
    neither.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    # Python's own handlers wait until a compiled step returns, which may take
    # minutes: what is written here comes from the signal itself.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch():
        while byte := os.read(reading, 1):
            if byte[0] not in SIGNALS:
                continue
            if asked.signal is not None:
                os._exit(128 + byte[0])
            asked.signal = byte[0]

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {
        one: signal.signal(one, lambda *_: None)
        for one in SIGNALS
        if signal.getsignal(one) is not signal.SIG_IGN  # as nohup wants it
    }
    try:
        yield asked
    finally:
        signal.set_wakeup_fd(woken)
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)
        os.close(writing)  # ends the thread
        thread.join()
        os.close(reading)
