"""The example of Celery, with a real worker and its processes."""

from __future__ import annotations

import importlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from conftest import Server, eventually
from lockhouse import Client

if TYPE_CHECKING:
    import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_a_task_renews_its_lock_and_the_next_one_comes_after_it(
    new_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server(auth_mode="token")
    database = tmp_path / "documents.db"
    for folder in ("queue", "control"):
        (tmp_path / folder).mkdir()
    # A broker without a program of its own.
    settings = tmp_path / "celeryconfig.py"
    settings.write_text(
        f"broker_url = 'filesystem://'\nbroker_transport_options = {{'data_folder_in': {str(tmp_path / 'queue')!r},"
        f" 'data_folder_out': {str(tmp_path / 'queue')!r}, 'control_folder': {str(tmp_path / 'control')!r}}}\n"
    )
    monkeypatch.setenv("BROKER_URL", "filesystem://")
    monkeypatch.setenv("LOCKHOUSE_URL", server.url)
    monkeypatch.setenv("LOCKHOUSE_TOKEN", server.command("token", "create", "--scope", "user", "--user", "translator"))
    monkeypatch.setenv("DATABASE", str(database))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), str(tmp_path)]))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(tmp_path))
    tasks = importlib.import_module("celery_tasks")
    tasks.app.config_from_object("celeryconfig")
    worker = [sys.executable, "-m", "celery", "--app", "celery_tasks", "--config", "celeryconfig", "worker"]
    worker += ["--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "warning"]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(worker, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    admin = server.command("token", "create", "--scope", "admin", "--name", "ci")
    try:
        with Client(server.url, token=admin) as client:
            tasks.translate.delay("plan", ["long"] * 40)
            eventually(lambda: client.read_lock("documents/plan"))
            first = client.read_lock("documents/plan")
            assert first is not None
            assert (first.kind, first.locked_by_user_id) == ("run", "translator")
            tasks.translate.delay("plan", ["short"])

            def is_renewed() -> bool:
                lock = client.read_lock("documents/plan")
                return lock is not None and lock.renewed_at != lock.acquired_at

            eventually(is_renewed)
            connection = sqlite3.connect(database, timeout=60)
            eventually(lambda: connection.execute("SELECT text FROM documents").fetchone() == ("SHORT",))
            [fence] = connection.execute("SELECT fence FROM documents").fetchone()
            connection.close()
            assert fence > first.fence
            eventually(lambda: client.read_lock("documents/plan") is None)
            ends = [event.type for event in client.history("documents/plan") if event.type != "lock.acquired"]
            assert set(ends) == {"lock.released"}
    finally:
        # With the processes of its pool.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
        sys.modules.pop("celery_tasks").client.close()
