"""Servers for the tests. `LOCKHOUSE` names the binary."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# On an old Python without these only the rest is tested.
collect_ignore = [f"test_{name}.py" for name in ("celery", "fastapi") if importlib.util.find_spec(name) is None]

BINARY = os.environ.get("LOCKHOUSE", str(Path(__file__).resolve().parents[3] / "target/debug/lockhouse"))
# A slow machine is no failure.
PATIENCE = 60.0


def eventually(holds: Callable[[], object]) -> None:
    """Waits until it holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class Server:
    """A server that runs."""

    def __init__(self, home: Path, listen: str = "127.0.0.1:0", **settings: str) -> None:
        self.home = home
        # Nothing of the settings of this machine.
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCKHOUSE")}
        self._environment.update({f"LOCKHOUSE_{name.upper()}": value for name, value in settings.items()})
        self._listen = listen
        self.start()

    def start(self) -> None:
        command = [BINARY, "serve", "--listen", self._listen, "--database", str(self.home / "lockhouse.db")]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        assert line.startswith("lockhouse is listening on "), (self.home / "log").read_text()
        self.url = line.split()[-1]
        if not self._listen.startswith("unix:"):
            self._listen = self.url[len("http://") :]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def command(self, *arguments: str) -> str:
        """Runs another command of the binary on the same database."""
        command = [BINARY, *arguments, "--database", str(self.home / "lockhouse.db")]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def new_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**settings: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("server"), **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.signal(signal.SIGCONT)
        server.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of most tests. In it everybody is an administrator."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def workspace() -> str:
    """A workspace of its own for each test."""
    return f"team/{uuid.uuid4().hex}"
