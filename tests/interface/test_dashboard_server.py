"""The dashboard: what it answers, and when it ends."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from wsgiref.simple_server import make_server

import pytest
from optuna_dashboard import wsgi

from paredown.dashboard_server import HOST, Guard, _Quiet, _Server, serve
from paredown.search.trials.database import database_url
from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import StudyError
from shared.commands import command, environment

LONGEST_SECONDS = 2.0


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder without a trial; its name holds what addresses are made of."""
    plain = tmp_path_factory.mktemp("study")
    TrialLog(plain / "study.db", with_latency=False)
    return plain.rename(plain.parent / "50%25 {best} #1?")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def asked(port: int, method: str, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a request; headers by name, with underscores for dashes."""
    connection = HTTPConnection(HOST, port, timeout=60)
    body = json.dumps({"study_name": "mine", "directions": ["minimize"]}) if method in ("POST", "DELETE") else None
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, body=body, headers=sent)
    response = connection.getresponse()
    return response.status, response.read().decode()


def studies(port: int) -> list[str]:
    status, body = asked(port, "GET", "/api/studies")
    assert status == 200, body
    return [summary["study_name"] for summary in json.loads(body)["study_summaries"]]


@contextmanager
def served(study: Path, *, allow_edits: bool) -> Iterator[int]:
    """The port of a server in this process."""
    port = free_port()
    with make_server(
        HOST, port, Guard(wsgi(database_url(study / "study.db")), port, allow_edits=allow_edits), _Server, _Quiet
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield port
        server.shutdown()


def test_the_command_serves_for_reading_and_ends_at_once_when_it_is_killed(study: Path) -> None:
    """Under its own address only; after kill -9 nothing listens."""
    port = free_port()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    with subprocess.Popen(command("dashboard", study, "--port", port), **pipes) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == f"http://127.0.0.1:{port}/ (Ctrl+C ends it)\n"
        assert studies(port) == ["paredown"]
        assert asked(port, "GET", "/dashboard")[0] == 200
        status, said = asked(port, "GET", "/api/studies", Host=f"evil.example:{port}")
        assert (status, said.count("\n")) == (403, 1)
        assert f"expected host 127.0.0.1:{port} or localhost:{port}, got evil.example:{port}" in said
        refused = 403, "this dashboard is read-only; start it with --allow-edits to change the study\n"
        for method, path in (("DELETE", "/api/studies/1"), ("POST", "/api/studies"), ("PUT", "/api/studies/1/note")):
            assert asked(port, method, path) == refused
        assert studies(port) == ["paredown"]
        process.kill()
        process.wait()
        end = time.monotonic() + LONGEST_SECONDS
        with pytest.raises(ConnectionRefusedError):
            while time.monotonic() < end:
                socket.create_connection((HOST, port)).close()
        assert process.stderr.read() == ""


def test_edits_are_for_pages_of_its_own(study: Path) -> None:
    """Where they are allowed at all: not for other sites, nor for others on this machine; programs send no origin."""
    with served(study, allow_edits=True) as port:
        own, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": other},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
        ):
            status, said = asked(port, "DELETE", "/api/studies/1", **headers)
            assert (status, said.count("\n")) == (403, 1), headers
        assert asked(port, "POST", "/api/studies", Host="evil.example", Origin=own)[0] == 403
        assert studies(port) == ["paredown"]
        assert asked(port, "POST", "/api/studies", Origin=own, Sec_Fetch_Site="same-origin")[0] == 201
        assert asked(port, "DELETE", "/api/studies/2")[0] == 204
        local = f"localhost:{port}"
        assert asked(port, "POST", "/api/studies", Host=local, Origin=f"http://{local}")[0] == 201
        assert sorted(studies(port)) == ["mine", "paredown"]
        assert asked(port, "DELETE", "/api/studies/2", Host=local, Origin=own)[0] == 403


def test_what_cannot_be_served_is_refused(study: Path, tmp_path: Path) -> None:
    """A folder of no study, and a port that is taken."""
    with pytest.raises(StudyError, match="holds no study.db; give a study folder"):
        serve(tmp_path, free_port())
    with (
        served(study, allow_edits=False) as port,
        pytest.raises(StudyError, match=f"port {port} .*choose another with --port"),
    ):
        serve(study, port)
