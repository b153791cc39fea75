"""A child process that kills itself before its n-th change of a file."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable
from typing import Any

WATCHED = ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "fsync")


class Killer:
    """Counts the changes that this process makes to files, and kills it before one of them.

    Args:
        fatal: Number of that change, from 0 on; None for no kill.

    Attributes:
        changes: How many there were.
        marks: Count at the moment when something else happened, by its name.
    """

    def __init__(self, fatal: int | None) -> None:
        self.fatal, self.changes = fatal, 0
        self.marks: dict[str, int] = {}

    def before(self, *_: object) -> None:
        """A change is about to be made."""
        if self.changes == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.changes += 1

    def install(self) -> None:
        """From now on all changes are counted; those of SQLite by statement and commit."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        for name in WATCHED:
            setattr(os, name, self._counted(getattr(os, name)))
        opened, streamed = os.open, io.open

        def open_file(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & os.O_CREAT:
                self.before()
            return opened(path, flags, *rest, **named)

        def stream(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            file = streamed(path, mode, *rest, **named)
            return Torn(file, self) if mode == "wb" else file

        os.open, io.open = open_file, stream
        event.listen(Engine, "before_cursor_execute", self.before)
        event.listen(Engine, "commit", self.before)

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.before()
            return real(*arguments, **named)

        return call


class Torn:
    """A file of which a kill leaves nothing or half."""

    def __init__(self, file: Any, killer: Killer) -> None:
        self.file, self.killer = file, killer

    def write(self, data: bytes) -> int:
        """Two changes, each on the disk before the next."""
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.killer.before()
            self.file.write(part)
            self.file.flush()
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def in_child(step: Callable[[Killer], None], fatal: int | None) -> dict[str, int] | None:
    """Runs a step in a process of its own; its marks and how many changes it made, None if it was killed."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        code = 1
        try:
            killer = Killer(fatal)
            killer.install()
            step(killer)
            os.write(writing, json.dumps({**killer.marks, "changes": killer.changes}).encode())
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert status == 0, f"the step ended with {status}, which is neither success nor a kill"
    return dict(json.loads(said))
