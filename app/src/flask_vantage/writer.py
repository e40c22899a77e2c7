"""A thread that writes log lines to stdout or stderr.

A write releases Python's global lock, so writing in the request's thread costs a thread switch for each line; measured
with eight threads, that was a third of the telemetry's time. And a full pipe would block every request. So a request
appends its line to a queue, and this thread writes the queue at most a hundred times a second.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

# About 16 MiB of usual lines; with a reader that has stopped, more are dropped.
QUEUE_LINES = 32_768
_SECONDS_BETWEEN_WRITES = 0.01
_LINES_PER_WRITE = 256


def write_to_stdout(data: bytes) -> None:
    """Write `data` to the current sys.stdout, which test runners replace."""
    _write(sys.stdout, data)


def write_to_stderr(data: bytes) -> None:
    """Write `data` to the current sys.stderr, which test runners replace."""
    _write(sys.stderr, data)


def _write(stream: TextIO, data: bytes) -> None:
    binary = getattr(stream, "buffer", None)
    if binary is None:
        stream.write(data.decode("utf-8", "replace"))
    else:
        binary.write(data)
    stream.flush()


class LineWriter:
    """Queues lines and writes them in order; a full queue drops the newest and counts it."""

    def __init__(self, write: Callable[[bytes], None] = write_to_stdout) -> None:
        self._write = write
        # Called with the number of dropped lines.
        self.count_dropped: Callable[[int], None] = lambda _: None
        self._is_child = _is_multiprocessing_child()
        self._start()
        atexit.register(self.flush, 2.0)
        # The child of a fork has no such thread. A write in the middle of a fork would leave its stream locked there.
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._start_in_child)

    def _start(self) -> None:
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._write_lock = threading.Lock()
        threading.Thread(target=self._run, name="vantage-log-writer", daemon=True).start()

    def _hold(self) -> None:
        self._is_held = self._write_lock.acquire(timeout=1.0)

    def _release(self) -> None:
        if self._is_held:
            self._write_lock.release()

    def _start_in_child(self) -> None:
        self._is_child = True
        self._start()

    def put(self, line: bytes) -> None:
        """Queue one line, newline included. Never waits, but in a child of multiprocessing, which writes at once."""
        if len(self._lines) >= QUEUE_LINES:
            self.count_dropped(1)
            return
        self._lines.append(line)
        if self._is_child and _is_multiprocessing_child():
            # It may end by os._exit at any time, without a last flush.
            self._drain()
        elif not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Write the queue; returns False when that takes longer than `timeout` seconds."""
        # A thread, because the write itself blocks while the pipe is full.
        worker = threading.Thread(target=self._drain, name="vantage-log-flush", daemon=True)
        try:
            worker.start()
        except RuntimeError:  # the interpreter is shutting down and starts no threads
            self._drain()
            return True
        worker.join(timeout)
        return not worker.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._drain()
            # Lines that come meanwhile share the next write.
            time.sleep(_SECONDS_BETWEEN_WRITES)

    def _drain(self) -> None:
        with self._write_lock:
            while self._lines:
                count = min(len(self._lines), _LINES_PER_WRITE)
                chunk = b"".join([self._lines.popleft() for _ in range(count)])
                try:
                    self._write(chunk)
                except (OSError, ValueError):
                    # The stream is closed, so this cannot be logged.
                    self.count_dropped(count)


def _is_multiprocessing_child() -> bool:
    # Not imported here, because that is slow: a child has it.
    parent_process = getattr(sys.modules.get("multiprocessing"), "parent_process", None)
    return parent_process is not None and parent_process() is not None
