"""Optuna's dashboard over a study folder, for this machine and, unless edits are allowed, for reading only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from paredown.search.database import check_database
from paredown.search.study_folder import database_url
from paredown.space.errors import StudyError
from paredown.space.interruption import stop_if_asked

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

HOST = "127.0.0.1"
"""It has no login, so it listens on this machine only."""

READS = ("GET", "HEAD", "OPTIONS")
STOP_SECONDS = 0.2
"""Between two looks whether a stop is asked for."""


class Guard:
    """An application that answers those requests only that a page of its own, or a program on this machine, makes.

    Any page in the browser can send requests to this machine: by a name of its own that resolves to it (DNS rebinding), or
    across sites, where it cannot read the answer but a write would be done.

    Args:
        app: The application.
        port: It is served on.
        allow_edits: Whether requests may change anything.
    """

    def __init__(self, app: WSGIApplication, port: int, *, allow_edits: bool) -> None:
        self.app, self.allow_edits = app, allow_edits
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")} | ({HOST, "localhost"} if port == 80 else set())

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """The application's answer, or 403 with a line that says why not."""
        refusal = self._refusal(environ)
        if refusal is None:
            return self.app(environ, start_response)
        text = f"{refusal}\n".encode()
        start_response(
            "403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
        )
        return [text]

    def _refusal(self, environ: dict[str, Any]) -> str | None:
        host = environ.get("HTTP_HOST", "").lower()
        if host not in self.hosts:
            return f"expected host {' or '.join(sorted(self.hosts))}, got {host or 'none'}; open the address that paredown printed"
        if environ["REQUEST_METHOD"] in READS:
            return None
        if not self.allow_edits:
            return "this dashboard is for reading only; start it with --allow-edits to change the study"
        own = f"http://{host}"
        if environ.get("HTTP_ORIGIN", own) != own or environ.get("HTTP_SEC_FETCH_SITE", "none") not in (
            "same-origin",
            "none",
        ):
            return (
                "expected a change from a page of this dashboard, got one from another site; make it in the dashboard"
            )
        return None


def serve(folder: Path, port: int, *, allow_edits: bool = False, ready: Callable[[], None] = lambda: None) -> None:
    """Serves the dashboard from this process, until a stop is asked for.

    Args:
        folder: The study's.
        port: Where it listens.
        allow_edits: Whether the study can be changed from it.
        ready: Called once it listens.

    Raises:
        StudyError: If the folder holds no study or a damaged one, or the port is taken.
        Stopped: If a stop is asked for.
    """
    database = (folder / "study.db").absolute()
    if not database.is_file():
        raise StudyError(f"{folder} holds no study.db; give the folder of a search")
    check_database(database)
    from optuna_dashboard import wsgi

    guard = Guard(wsgi(database_url(database)), port, allow_edits=allow_edits)
    try:
        server = make_server(HOST, port, guard, _Server, _Quiet)
    except OSError as error:
        raise StudyError(f"cannot listen on port {port} ({error.strerror}); choose another with --port") from None
    with server:
        server.timeout = STOP_SECONDS
        ready()
        while True:
            stop_if_asked()
            server.handle_request()


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """No line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        pass
