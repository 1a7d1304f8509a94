"""What the API answers. Each is a `dict` whose keys are attributes, too: `lock.fence` is `lock["fence"]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


class Record(dict[str, Any]):
    """A JSON object. A field that this version does not know is there as well. One that may be missing is None."""

    if not TYPE_CHECKING:
        _known = set()

        def __init_subclass__(cls) -> None:
            cls._known.update(cls.__annotations__)

        def __getattr__(self, name: str) -> Any:
            if name in self or name in self._known:
                return self.get(name)
            raise AttributeError(f"{type(self).__name__} has no field {name}")


class Agent(Record):
    """The agent that holds a lock, and the user for whom it acts."""

    name: str | None
    for_user_id: str | None
    for_name: str | None


class Knock(Record):
    """A pending request to the holder for the lock."""

    user_id: str
    name: str | None
    kind: str | None
    agent: Agent | None
    message: str | None
    knocked_at: str
    auto_grant_at: str | None
    auto_grant_in_ms: int | None
    auto_grant_at_latest_in_ms: int | None


class Lock(Record):
    """The lock of a workspace. Count down from `expires_in_ms`, not to `expires_at`: clocks differ."""

    workspace_id: str
    kind: str
    locked_by_user_id: str
    locked_by_name: str | None
    session_id: str | None
    fence: int
    acquired_at: str
    renewed_at: str
    last_active_at: str
    expires_at: str
    expires_in_ms: int
    ttl_ms: int
    note: str | None
    metadata: dict[str, Any]
    knock: Knock | None
    agent: Agent | None


class Acquired(Record):
    """`outcome` is `acquired`, `renewed`, `reclaimed` or `taken_over`, then with the `previous` lock."""

    outcome: str
    lock: Lock
    previous: Lock | None
    drain_ms: int | None


class Renewed(Record):
    """A renewed lease."""

    success: bool
    expires_at: str
    expires_in_ms: int
    fence: int
    session_id: str | None
    knock: Knock | None
    waiting: int


class RenewedOne(Record):
    """One of several leases: renewed, with status 200, or refused, with a code."""

    workspace_id: str
    status: int
    success: bool
    expires_at: str
    expires_in_ms: int
    fence: int
    knock: Knock | None
    waiting: int
    code: str
    detail: str
    lock: Lock | None
    lost: Lost | None
    same_user: bool


class RenewedMany(Record):
    """An answer for each lease, in the order of the request."""

    results: list[RenewedOne]


class Lost(Record):
    """How the caller's last lease ended."""

    reason: str
    fence: int
    at: str
    by_user_id: str | None
    by_name: str | None
    yielded: bool | None


class HandedOver(Record):
    """The lock has another holder."""

    handed_over: bool
    lock: Lock


class KnockAccepted(Record):
    """The holder will see the knock."""

    knock: Knock
    lock: Lock


class Follower(Record):
    """A user who follows the events of a workspace, or waits for its lock."""

    user_id: str
    name: str | None
    since_at: str


class Waiting(Follower):
    """A user in the line."""

    session_id: str | None
    kind: str | None
    agent: Agent | None


class Presence(Record):
    """Who is there."""

    lock: Lock | None
    knocks: list[Knock]
    waiting: list[Waiting]
    followers: list[Follower]


class Event(Record):
    """An entry of the history."""

    revision: int
    type: str
    kind: str | None
    at: str
    user_id: str | None
    session_id: str | None
    by_user_id: str | None
    by_name: str | None
    fence: int | None
    detail: Record


class WorkspaceEvent(Event):
    """An entry of the history, with its workspace."""

    workspace_id: str


class StreamEvent(WorkspaceEvent):
    """An event as it happens, with the lock that it created. `type` is `reset` after events were missed."""

    lock: Lock | None


class Caller(Record):
    """Who the server thinks is calling."""

    user_id: str | None
    name: str | None
    mode: str
    scope: str | None
    agent: bool | None
    is_admin: bool
    expires_at: str | None


class Workspace(Record):
    """A workspace that was put."""

    workspace_id: str
    name: str | None
    created_at: str


class Member(Record):
    """`role` is `viewer`, `editor` or `admin`."""

    user_id: str
    role: str


class Token(Record):
    """A token, without its secret."""

    token_id: str
    user_id: str | None
    name: str | None
    scope: str
    agent: bool | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class NewToken(Token):
    """A token with its secret, which is shown once."""

    token: str


class Violation(Record):
    """A broken rule in the database."""

    kind: str
    workspace_id: str | None
    fence: int | None


class Checked(Record):
    """What a check found and repaired."""

    violations: list[Violation]
    repaired: int


class Webhook(Record):
    """A receiver of events. `lag` is how many wait for it."""

    name: str
    url: str
    state: str
    position: int
    lag: int
    failures: int
    failing_since: str | None
    last_delivered_at: str | None
    last_error: str | None
    last_error_at: str | None
    next_try_in_ms: int | None


class Status(Record):
    """`status` is `up` or `ready`."""

    status: str
    version: str
