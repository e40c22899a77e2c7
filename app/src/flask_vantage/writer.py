"""Log lines on their way to the standard output, written by a thread of their own.

A write gives up Python's global lock, so writing in the request's thread costs a change of thread
for each line; measured with eight threads, that was a third of all the telemetry's time. And a pipe
that nobody empties would stop every request. So a request only appends its line to a queue, and
this thread writes whatever has gathered, some hundred times a second at most.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

# About 16 MiB of usual lines: what a stalled reader costs before lines are dropped.
QUEUE_LINES = 32_768
_SECONDS_BETWEEN_WRITES = 0.01
_LINES_PER_WRITE = 256


def write_to_stdout(data: bytes) -> None:
    """Write all of `data`; the stream is looked up each time, since test runners replace it."""
    stream = sys.stdout
    binary = getattr(stream, "buffer", None)
    if binary is None:
        stream.write(data.decode("utf-8", "replace"))
    else:
        binary.write(data)
    stream.flush()


def _ignore(_: int) -> None:
    return None


class LineWriter:
    """Queues lines and writes them in order. A full queue drops the newest and counts it."""

    def __init__(self, write: Callable[[bytes], None] = write_to_stdout) -> None:
        self._write = write
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._rest = threading.Event()
        self._write_lock = threading.Lock()
        # Called with the number of lines that were lost.
        self.count_dropped: Callable[[int], None] = _ignore
        self._start()
        atexit.register(self.flush, 2.0)
        # A forking server's children have no such thread.
        os.register_at_fork(after_in_child=self._restart)

    def put(self, line: bytes) -> None:
        """Queue one line, newline included. Never waits."""
        if len(self._lines) >= QUEUE_LINES:
            self.count_dropped(1)
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Write what is queued now; return False when that takes longer than `timeout` seconds."""
        # A thread, because the write itself may hang on a pipe that nobody empties.
        worker = threading.Thread(target=self._drain, name="vantage-log-flush", daemon=True)
        try:
            worker.start()
        except RuntimeError:  # the interpreter is on its way out and starts no threads
            self._drain()
            return True
        worker.join(timeout)
        return not worker.is_alive()

    def _start(self) -> None:
        threading.Thread(target=self._run, name="vantage-log-writer", daemon=True).start()

    def _restart(self) -> None:
        self._lines.clear()
        self._wake = threading.Event()
        self._rest = threading.Event()
        self._write_lock = threading.Lock()
        self._start()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._drain()
            # Lines that come meanwhile share the next write.
            self._rest.wait(_SECONDS_BETWEEN_WRITES)

    def _drain(self) -> None:
        with self._write_lock:
            while self._lines:
                count = min(len(self._lines), _LINES_PER_WRITE)
                chunk = b"".join([self._lines.popleft() for _ in range(count)])
                try:
                    self._write(chunk)
                except (OSError, ValueError):
                    # Nobody reads, or the stream is closed; there is no place left to say so.
                    self.count_dropped(count)
