"""Child processes that end when their parent dies, however it dies.

Run as a script, this file starts to watch its parent before any heavy import, and then runs the program in its
arguments.
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
"""Interval at which a child checks its parent, and `finished` checks for a stop request [s]."""

PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that the process gets when its parent dies.

SIGKILL also ends a process that cannot run Python code at that moment.
"""


def command(program: Path, *arguments: str) -> list[str]:
    """Command that runs a Python file as a child of this process.

    The child imports neither from its own folder nor from the current one.
    """
    return [sys.executable, "-P", "-W", "ignore", __file__, str(os.getpid()), str(program), *arguments]


def finished(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a child to its end; its exit code and output.

    The child has its own process group, so Ctrl+C reaches this process alone.

    Raises:
        Stopped: If a stop is requested before the child ends; the child is killed.
    """
    from paredown.space.system.interruption import stop_if_asked

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
    """Makes this process end within `WATCH_SECONDS` of its parent's death."""

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
