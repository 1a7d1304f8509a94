"""Celery: one task at a time for each document. The lease is renewed while the task runs.

Needs `lockhouse` and `celery`. With `LOCKHOUSE_URL`, `LOCKHOUSE_TOKEN` and a broker in `BROKER_URL`:

    celery --app celery_tasks worker
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any

from celery import Celery

from lockhouse import Client, LockLost, NotAcquired

app = Celery("celery_tasks", broker=os.environ.get("BROKER_URL", "redis://localhost"))
# One for the worker. Each of its processes makes a thread of its own for the heartbeats.
client = Client(os.environ["LOCKHOUSE_URL"], token=os.environ["LOCKHOUSE_TOKEN"])


def connect() -> sqlite3.Connection:
    database = sqlite3.connect(os.environ.get("DATABASE", "documents.db"), timeout=60)
    database.execute("CREATE TABLE IF NOT EXISTS documents (id PRIMARY KEY, text, fence BIGINT NOT NULL DEFAULT 0)")
    return database


def save(document_id: str, text: str, fence: int) -> None:
    """The database compares the fence, in one statement with the change: a save that is late changes nothing."""
    with connect() as database:
        database.execute("INSERT INTO documents (id) VALUES (?) ON CONFLICT DO NOTHING", [document_id])
        changed = database.execute(
            "UPDATE documents SET text = ?, fence = ? WHERE id = ? AND fence <= ?", [text, fence, document_id, fence]
        )
    database.close()
    if changed.rowcount == 0:
        raise LockLost(document_id, fence, "taken_over")


# A worker that dies is no loss: the task comes again. So does one that has lost its lock.
@app.task(bind=True, acks_late=True, autoretry_for=(LockLost,), max_retries=None)  # type: ignore[untyped-decorator]
def translate(self: Any, document_id: str, pages: list[str]) -> None:
    """Translates a document page by page, which takes long."""
    try:
        with client.lock(f"documents/{document_id}", ttl=6, note=f"task {self.request.id}") as lease:
            done: list[str] = []
            for page in pages:
                lease.ensure_held()
                time.sleep(0.25)
                done.append(page.upper())
                save(document_id, "\n".join(done), lease.fence)
    except NotAcquired as busy:
        # The worker does something else meanwhile.
        raise self.retry(countdown=min(busy.expires_in or 1, 3), exc=busy) from busy
