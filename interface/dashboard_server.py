"""Optuna's dashboard over a study folder."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from paredown.search.study_folder import database_url
from paredown.space.errors import StudyError

HOST = "127.0.0.1"
"""It has no login, so it listens on this machine only."""

PROGRAM = "import sys; from optuna_dashboard import run_server; run_server(sys.argv[1], host=sys.argv[2], port=int(sys.argv[3]))"


def serve(folder: Path, port: int) -> None:
    """Serves the dashboard in a process of its own, until that ends or this one is interrupted.

    Raises:
        StudyError: If the folder holds no study, or the port is taken.
    """
    database = (folder / "study.db").absolute()
    if not database.is_file():
        raise StudyError(f"{folder} holds no study.db; give the folder of a search")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StudyError(f"cannot listen on port {port} ({error.strerror}); choose another with --port") from None
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, database_url(database), HOST, str(port)]
    with subprocess.Popen(command) as process:
        try:
            process.wait()
        finally:
            process.terminate()
    if process.returncode:
        raise StudyError(f"the dashboard ended with exit code {process.returncode}; its own message is above")
