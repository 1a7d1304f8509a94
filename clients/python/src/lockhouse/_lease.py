"""The state of a lease: its deadline, its next heartbeat, how it ended. No input or output happens here."""

from __future__ import annotations

import enum
import os
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

from ._errors import ApiError, LockLost, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._types import Knock

# Seconds. A loss is learnt from a heartbeat, so those of long leases are not rarer than this.
LONGEST_INTERVAL = 10.0
LONGEST_TIMEOUT = 10.0
# The server's limit for one call.
BATCH = 100


def now() -> float:
    """Seconds on a clock that is never set, and that goes on while the machine sleeps, where there is one."""
    monotonic = time.monotonic()
    if hasattr(time, "CLOCK_BOOTTIME"):
        return max(monotonic, time.clock_gettime(time.CLOCK_BOOTTIME))
    return monotonic


def backoff(failures: int, error: BaseException | None = None) -> float:
    """Seconds until the next attempt: longer each time, with jitter so that clients do not come back together."""
    most = min(10.0, 0.25 * 2.0 ** min(failures, 10))
    asked = error.retry_after or 0 if isinstance(error, ApiError) else 0
    return max(min(asked, 60.0), most / 2) + random.random() * most / 2


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, a limit, a fault of the server or of a proxy."""
    if isinstance(error, ApiError):
        return error.status >= 500 or error.status == 429
    return isinstance(error, UnreachableError)


class Phase(enum.Enum):
    """`ACQUIRING` until the caller may begin, `RELEASING` until the server has said that it is released."""

    IDLE = "not_acquired"
    ACQUIRING = "acquiring"
    HELD = "held"
    RELEASING = "releasing"
    RELEASED = "released"


class State:
    """All that a handle knows about its lease."""

    def __init__(self, workspace_id: str, ttl: float | None) -> None:
        self.workspace_id = workspace_id
        self.ttl = ttl
        self._forget()
        self.phase = Phase.IDLE

    def begin(self) -> None:
        """Begins to acquire."""
        if self.is_foreign():
            self._forget()
        elif self.phase not in (Phase.IDLE, Phase.RELEASED) and not self.ended:
            raise RuntimeError(f"the lock of {self.workspace_id} is {self.phase.value} by this handle")
        self._clear()

    def is_foreign(self) -> bool:
        """Whether this is a copy in a forked process. The lease is not its own."""
        return self.pid != os.getpid()

    def _forget(self) -> None:
        self.pid = os.getpid()
        self.session_id = f"python-{uuid.uuid4().hex}"
        self._clear()

    def _clear(self) -> None:
        self.phase = Phase.ACQUIRING
        self.fence: int | None = None
        self.ended: LockLost | None = None
        # Set by `renewed`: until when the lease is held, when the next heartbeat is due, on the clock `now`.
        self.deadline = 0.0
        self.beat_at = 0.0
        # Until then the process of the lease before this one may still run.
        self.drained_at = 0.0
        self.failures = 0
        self.knock: Knock | None = None
        self.waiting = 0

    def renewed(self, answer: Any, sent_at: float) -> None:
        """The server has granted or renewed the lease. It counts from when the request was sent."""
        length = answer["expires_in_ms"] / 1000
        self.deadline = sent_at + length
        # Jitter, so that clients that started together spread their heartbeats.
        self.beat_at = sent_at + min(length / 3, LONGEST_INTERVAL) * random.uniform(0.8, 1)
        self.failures = 0
        self.knock = answer["knock"]
        self.waiting = answer.get("waiting", self.waiting)

    def timeout(self, at: float) -> float:
        """For how long a heartbeat that is sent now may take. It ends before the lease does."""
        left = self.deadline - at
        return min(left, max(left / 2, 2), LONGEST_TIMEOUT)

    def sent(self) -> None:
        """A heartbeat is on its way. There is no other before it has failed."""
        self.beat_at = self.deadline

    def failed(self, error: BaseException, at: float) -> None:
        """A heartbeat had no answer. The next one is sent in time, also if the server asks for a pause."""
        self.beat_at = at + min(backoff(self.failures, error), max((self.deadline - at) / 3, 0.1))
        self.failures += 1

    def loss(self, at: float) -> LockLost | None:
        """Why the lease does not count as held, once and for all."""
        if self.ended is None and at >= self.deadline:
            self.ended = LockLost(self.workspace_id, self.fence, "expired")
        return self.ended

    def refusal(self, at: float) -> LockLost | None:
        """Why the caller may not write."""
        if self.is_foreign():
            return LockLost(self.workspace_id, self.fence, "forked")
        if self.phase is Phase.HELD or self.ended:
            lost = self.loss(at)
            return LockLost(*lost.args) if lost else None
        return LockLost(self.workspace_id, self.fence, self.phase.value)


def due(states: Iterable[State], at: float) -> list[State]:
    """The leases of the next call, if a heartbeat is due."""
    waiting = sorted(states, key=lambda state: state.beat_at)
    if not waiting or waiting[0].beat_at > at:
        return []
    # One that would be due soon goes along. One whose heartbeat is on its way does not: see `sent`.
    return [state for state in waiting if state.beat_at <= at + (state.deadline - at) / 4][:BATCH]


class Handle:
    """What both handles say without asking the server. It may be called from any thread."""

    _state: State

    @property
    def workspace_id(self) -> str:
        return self._state.workspace_id

    @property
    def session_id(self) -> str:
        """Names this handle to the server."""
        return self._state.session_id

    @property
    def fence(self) -> int:
        """The number of the lease, for the database: `WHERE fence <= …`. It stays the same when the lease ends."""
        if self._state.fence is None:
            raise LockLost(self.workspace_id, None, Phase.IDLE.value)
        return self._state.fence

    @property
    def knock(self) -> Knock | None:
        """Somebody who asks for the lock, as of the last heartbeat."""
        return self._state.knock

    @property
    def waiting(self) -> int:
        """How many wait in the line, as of the last heartbeat."""
        return self._state.waiting

    def remaining(self) -> float:
        """Seconds until the lease ends unless it is renewed. 0 when it is not held."""
        at = now()
        return 0.0 if self._state.refusal(at) else max(0.0, self._state.deadline - at)

    def ensure_held(self) -> None:
        """Raises `LockLost` unless the lease is held now."""
        lost = self._state.refusal(now())
        if lost:
            raise lost
