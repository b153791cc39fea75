"""Server of Optuna's dashboard for a study folder: on this machine only, and read-only unless edits are allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from paredown.search.trials.database import check_database, database_url
from paredown.space.errors import StudyError
from paredown.space.system.interruption import stop_if_asked

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

HOST = "127.0.0.1"
"""Address to listen on: this machine only, since the dashboard has no login."""

READS = ("GET", "HEAD", "OPTIONS")
"""Request methods that change nothing."""

STOP_SECONDS = 0.2
"""Interval between checks for a stop request [s]."""


class Guard:
    """Wraps an application to answer only requests from its own pages or from programs on this machine.

    Any page in a browser can send requests to this machine. It can use a name of its own that resolves to this machine
    (DNS rebinding). It can also send cross-site requests: it cannot read the answer, but a write would take effect.

    Args:
        app: The application.
        port: Port that the application is served on.
        allow_edits: Whether requests may change anything.
    """

    def __init__(self, app: WSGIApplication, port: int, *, allow_edits: bool) -> None:
        self.app, self.allow_edits = app, allow_edits
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")} | ({HOST, "localhost"} if port == 80 else set())

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """The application's response, or 403 with a line that says why the request is refused."""
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
            return (
                f"expected host {' or '.join(sorted(self.hosts))}, got {host or 'none'}; "
                "open the address that paredown printed"
            )
        if environ["REQUEST_METHOD"] in READS:
            return None
        if not self.allow_edits:
            return "this dashboard is read-only; start it with --allow-edits to change the study"
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
    """Serves the dashboard from this process until a stop is requested.

    Args:
        folder: The study folder.
        port: Port to listen on.
        allow_edits: Whether the page may change the study.
        ready: Called once the server listens.

    Raises:
        StudyError: If the trial database is missing or damaged, or the port is taken.
        Stopped: When a stop is requested.
    """
    database = (folder / "study.db").absolute()
    if not database.is_file():
        raise StudyError(f"{folder} holds no study.db; give a study folder")
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
    """Server with one thread per request."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass
