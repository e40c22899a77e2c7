"""Says why an app cannot start when the operating system refused it something."""

from __future__ import annotations

import errno
import os


def explain(error: OSError) -> str:
    """Return one line for an OSError of the app's own code: what failed, with the file, and what to do."""
    what = error.strerror or str(error)
    if error.filename is not None:
        what += f": {os.fsdecode(error.filename)!r}" if isinstance(error.filename, str | bytes) else ""
    return f"the app cannot start: {what}. {_fix(error)}"


def _fix(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return (
            "It is read-only in the container. Write to the app's data directory (flask_app_data), to a directory of "
            "flask_app_writable or to /tmp, and log to the standard output."
        )
    if isinstance(error, PermissionError):
        return f"User {os.getuid()} may not do this. Give that user access, or run the app as another (flask_app_user)."
    if isinstance(error, FileNotFoundError):
        return "Add the file to the app's source, or correct its path in the app's settings."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room on this file system."
    if error.errno == errno.EADDRINUSE:
        return "The app itself listens on an address that is taken. Remove its own `run` call; vantage-serve listens."
    if isinstance(error, ConnectionError | TimeoutError):
        return "Start the service that the app connects to, or correct its address in the app's settings."
    if error.errno is None and "username" in str(error):
        return "The container's user has no name: set USER and HOME in the app's environment."
    return "The traceback above shows where."
