"""Processes that end with the one that started them, however that dies.

Run by path, this file starts its watch before anything else is imported, and then becomes the program that it was asked for.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

WATCH_SECONDS = 0.2
"""Between two looks at the parent."""

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent dies; it ends even one that cannot run Python code at the moment."""


def command(program: Path, *arguments: str) -> list[str]:
    """The command of a child of this process: a Python file with its arguments, which sees neither its folder nor the current one."""
    return [sys.executable, "-P", "-W", "ignore", __file__, str(os.getpid()), str(program), *arguments]


def finished(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A child that has ended, with what it wrote; it runs in a group of its own, so that Ctrl+C reaches this process alone.

    Raises:
        Stopped: If a stop is asked for before; the child is killed.
    """
    from paredown.space.interruption import stop_if_asked

    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, env=environment, text=True, process_group=0, stdout=pipe, stderr=pipe) as process:
        try:
            while True:
                stop_if_asked()
                try:
                    output, errors = process.communicate(timeout=WATCH_SECONDS)
                    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            raise


def end_with(parent: int) -> None:
    """Ends this process within `WATCH_SECONDS` of the death of its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
