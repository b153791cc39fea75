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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

WATCH_SECONDS = 0.2
"""Interval at which a child checks its parent, and `finished` checks for a stop request [s]."""

LONGEST_END_SECONDS = 5.0
"""Time that a child has to end after SIGTERM before it is killed [s]."""

PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that the process gets when its parent dies.

SIGKILL also ends a process that cannot run Python code at that moment.
"""

Child = subprocess.Popen[str]


def command(program: Path, *arguments: str) -> list[str]:
    """Command that runs a Python file as a child of this process.

    The child imports neither from its own folder nor from the current one.
    """
    return [sys.executable, "-P", "-W", "ignore", __file__, str(os.getpid()), str(program), *arguments]


def started(
    program: Path, *arguments: str, environment: Mapping[str, str], handles: Sequence[int] = (), piped: bool = False
) -> Child:
    """A child that runs a Python file, in a process group of its own: Ctrl+C reaches this process alone.

    Args:
        program: The file.
        arguments: Its arguments.
        environment: Its environment variables.
        handles: File descriptors that it inherits.
        piped: Whether its output and errors are piped; else its output is discarded, and its errors go where ours do.
    """
    return subprocess.Popen(
        command(program, *arguments),
        env=environment,
        pass_fds=handles,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
        stderr=subprocess.PIPE if piped else None,
        text=True,
        process_group=0,
    )


def end(children: Iterable[Child]) -> None:
    """Ends children: SIGTERM, then SIGKILL for those that live on after `LONGEST_END_SECONDS`."""
    children = list(children)
    for process in children:
        process.terminate()
    for process in children:
        try:
            process.wait(LONGEST_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def finished(program: Path, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a child to its end; its exit code and output.

    Raises:
        Stopped: If a stop is requested before the child ends; the child is killed.
    """
    from paredown.space.system.interruption import stop_if_asked

    with started(program, *arguments, environment=environment, piped=True) as process:
        try:
            while True:
                stop_if_asked()
                try:
                    output, errors = process.communicate(timeout=WATCH_SECONDS)
                    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
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
