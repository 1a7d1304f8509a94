"""Every operation of the API, as a description of its request. No input or output happens here.

Both clients have a method for each: `Client.knock` sends what `knock` describes and returns the result, and
`AsyncClient.knock` returns an awaitable. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar
from urllib.parse import quote

from . import _types as types
from ._types import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

T = TypeVar("T")
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `result` makes the answer's body into what the method returns."""

    method: str
    path: str
    result: Callable[[Any], T]
    query: Sequence[tuple[str, Any]] = ()
    body: dict[str, Any] | None = None
    # How much longer than others the request may take, in seconds.
    waits: float = 0
    # Codes of refusals that are a result.
    refusals: Mapping[str, T] = field(default_factory=dict)


@dataclass(frozen=True)
class Pages(Generic[T]):
    """A list that is read page by page: `page(cursor)` is the request for one."""

    page: Callable[[Any], Call[tuple[list[T], Any]]]


def path(*names: str) -> str:
    """A path of the API below `/api/v1`. Names of resources are encoded."""
    for name in names:
        if name in ("", ".", ".."):
            raise ValueError(f"{name!r} cannot be an id")
    return "/api/v1/" + "/".join(quote(name, safe="") for name in names)


def lock_path(workspace_id: str, *rest: str) -> str:
    return path("workspaces", workspace_id, "lock", *rest)


def milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def query(**members: Any) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in given(**members).items():
        many = value if isinstance(value, (list, tuple)) else [value]
        pairs += [(name, str(one).lower() if isinstance(one, bool) else str(one)) for one in many]
    return pairs


def paged(
    of: str, result: type[R], names: Sequence[str], known: Mapping[str, Any] | None = None, **members: Any
) -> Pages[R]:
    """`known`: fields that the server leaves out of the items because the request says them."""

    def page(cursor: Any) -> Call[tuple[list[R], Any]]:
        def items(body: Any) -> tuple[list[R], Any]:
            return [result({**(known or {}), **item}) for item in body[of]], body["next_cursor"]

        return Call("GET", path(*names), items, query(cursor=cursor, **members))

    return Pages(page)


# Locks.


def acquire(
    self: object,
    workspace_id: str,
    *,
    session_id: str | None = None,
    ttl: float | None = None,
    wait: float | None = None,
    force: bool | None = None,
    expected_fence: int | None = None,
    name: str | None = None,
    note: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    reason: str | None = None,
    kind: str | None = None,
) -> Call[types.Acquired]:
    """Acquires the lock once, without heartbeats. `lock()` renews what it acquires, and is what you want."""
    body = given(
        session_id=session_id,
        ttl_ms=milliseconds(ttl),
        wait_ms=milliseconds(wait),
        force=force,
        expected_fence=expected_fence,
        name=name,
        note=note,
        metadata=metadata,
        reason=reason,
        kind=kind,
    )
    return Call("POST", lock_path(workspace_id), types.Acquired, body=body, waits=wait or 0)


def read_lock(self: object, workspace_id: str) -> Call[types.Lock | None]:
    """The lock of a workspace, or None."""
    return Call("GET", lock_path(workspace_id), lambda body: types.Lock(body["lock"]) if body["lock"] else None)


def heartbeat(
    self: object,
    workspace_id: str,
    fence: int | None = None,
    *,
    session_id: str | None = None,
    ttl: float | None = None,
    active: bool | None = None,
) -> Call[types.Renewed]:
    """Renews a lease. `active`: a person did something since the last heartbeat."""
    body = given(fence=fence, session_id=session_id, ttl_ms=milliseconds(ttl), active=active)
    return Call("POST", lock_path(workspace_id, "heartbeat"), types.Renewed, body=body)


def heartbeat_many(
    self: object, locks: Iterable[Mapping[str, Any]], *, ttl: float | None = None
) -> Call[types.RenewedMany]:
    """Renews up to 100 leases. Each has `workspace_id`, and may have `fence`, `session_id`, `active`."""
    body = given(locks=[dict(lock) for lock in locks], ttl_ms=milliseconds(ttl))
    return Call("POST", path("locks", "heartbeat"), types.RenewedMany, body=body)


def release(
    self: object,
    workspace_id: str,
    fence: int | None = None,
    *,
    session_id: str | None = None,
    force: bool | None = None,
    reason: str | None = None,
) -> Call[bool]:
    """Releases a lock. With `force` it ends another user's. False: there was nothing to release."""
    body = given(fence=fence, session_id=session_id, force=force, reason=reason)
    return Call("POST", lock_path(workspace_id, "release"), lambda body: bool(body["released"]), body=body)


def handover(
    self: object,
    workspace_id: str,
    to_user_id: str | None = None,
    *,
    fence: int | None = None,
    session_id: str | None = None,
) -> Call[types.HandedOver]:
    """Hands the lock over to a user who waits or knocked. Default: the one who knocked first."""
    body = given(to_user_id=to_user_id, fence=fence, session_id=session_id)
    return Call("POST", lock_path(workspace_id, "handover"), types.HandedOver, body=body)


def knock(
    self: object,
    workspace_id: str,
    message: str | None = None,
    *,
    name: str | None = None,
    session_id: str | None = None,
    kind: str | None = None,
) -> Call[types.KnockAccepted]:
    """Asks the holder for the lock."""
    body = given(message=message, name=name, session_id=session_id, kind=kind)
    return Call("POST", lock_path(workspace_id, "knock"), types.KnockAccepted, body=body)


def decline(
    self: object,
    workspace_id: str,
    user_id: str | None = None,
    *,
    fence: int | None = None,
    session_id: str | None = None,
) -> Call[bool]:
    """Declines a knock. Default: that of the one who knocked first."""
    body = given(user_id=user_id, fence=fence, session_id=session_id)
    return Call("POST", lock_path(workspace_id, "knock", "decline"), lambda body: bool(body["declined"]), body=body)


def presence(self: object, workspace_id: str) -> Call[types.Presence]:
    """The holder, knocks, who waits, and who follows the events."""
    return Call("GET", path("workspaces", workspace_id, "presence"), types.Presence)


def locks(
    self: object,
    *,
    prefix: str | None = None,
    user_id: str | None = None,
    kind: str | None = None,
    limit: int | None = None,
) -> Pages[types.Lock]:
    """All live locks. `limit` is the size of a page."""
    return paged("locks", types.Lock, ["locks"], prefix=prefix, user_id=user_id, kind=kind, limit=limit)


def release_all(
    self: object, user_id: str, *, kind: Sequence[str] | None = None, reason: str | None = None
) -> Call[int]:
    """Releases all locks of a user, and returns how many. Default: those of the kind `edit`."""
    where = path("users", user_id, "locks")
    return Call("DELETE", where, lambda body: int(body["released"]), query(kind=kind, reason=reason))


def gate(self: object, workspace_id: str, fence: int) -> Call[bool]:
    """Whether the caller holds this lease now."""
    asked = query(workspace_id=workspace_id, fence=fence)
    refused = {"not_holder": False, "not_a_member": False}
    return Call("GET", path("gate"), lambda _: True, asked, refusals=refused)


def history(
    self: object,
    workspace_id: str | None = None,
    *,
    user_id: str | None = None,
    by_user_id: str | None = None,
    type: Sequence[str] | None = None,
    from_: str | None = None,
    until: str | None = None,
    limit: int | None = None,
) -> Pages[types.WorkspaceEvent]:
    """What happened, newest first: to a workspace, or to all that the caller may see, by these filters."""
    filters = given(user_id=user_id, by_user_id=by_user_id, type=type, until=until, **{"from": from_})
    if workspace_id is None:
        return paged("events", types.WorkspaceEvent, ["history"], limit=limit, **filters)
    if filters:
        raise TypeError(f"the history of one workspace is not filtered by {', '.join(filters)}")
    return paged(
        "events",
        types.WorkspaceEvent,
        ["workspaces", workspace_id, "history"],
        limit=limit,
        known=given(workspace_id=workspace_id),
    )


# Workspaces and members.


def workspaces(self: object, *, limit: int | None = None) -> Pages[types.Workspace]:
    """All workspaces that were put and that the caller may see."""
    return paged("workspaces", types.Workspace, ["workspaces"], limit=limit)


def read_workspace(self: object, workspace_id: str) -> Call[types.Workspace]:
    return Call("GET", path("workspaces", workspace_id), types.Workspace)


def put_workspace(self: object, workspace_id: str, name: str | None = None) -> Call[types.Workspace]:
    return Call("PUT", path("workspaces", workspace_id), types.Workspace, body=given(name=name))


def delete_workspace(self: object, workspace_id: str) -> Call[bool]:
    """Deletes a workspace and ends its lock."""
    return Call("DELETE", path("workspaces", workspace_id), lambda body: bool(body["deleted"]))


def members(self: object, workspace_id: str, *, limit: int | None = None) -> Pages[types.Member]:
    return paged("members", types.Member, ["workspaces", workspace_id, "members"], limit=limit)


def put_member(self: object, workspace_id: str, user_id: str, role: str) -> Call[types.Member]:
    """`role` is `viewer`, `editor` or `admin`."""
    where = path("workspaces", workspace_id, "members", user_id)
    return Call("PUT", where, types.Member, body={"role": role})


def remove_member(self: object, workspace_id: str, user_id: str) -> Call[bool]:
    """Removes a member and ends their lock."""
    where = path("workspaces", workspace_id, "members", user_id)
    return Call("DELETE", where, lambda body: bool(body["removed"]))


# Callers and tokens.


def whoami(self: object) -> Call[types.Caller]:
    return Call("GET", path("whoami"), types.Caller)


def tokens(self: object, *, limit: int | None = None) -> Pages[types.Token]:
    return paged("tokens", types.Token, ["tokens"], limit=limit)


def create_token(
    self: object,
    user_id: str | None = None,
    *,
    name: str | None = None,
    scope: str | None = None,
    ttl: float | None = None,
    agent: bool | None = None,
) -> Call[types.NewToken]:
    """Makes a token. `token.token` is its secret, which is shown once. `agent`: for an AI agent."""
    body = given(user_id=user_id, name=name, scope=scope, ttl_ms=milliseconds(ttl), agent=agent)
    return Call("POST", path("tokens"), types.NewToken, body=body)


def revoke_token(self: object, token_id: str) -> Call[bool]:
    return Call("DELETE", path("tokens", token_id), lambda body: bool(body["revoked"]))


# The server.


def webhooks(self: object) -> Call[list[types.Webhook]]:
    """The webhooks of the settings, and how far each has come."""
    return Call("GET", path("webhooks"), lambda body: [types.Webhook(item) for item in body["webhooks"]])


def try_webhook(self: object, name: str) -> Call[bool]:
    """Makes the next attempt of a webhook at once."""
    return Call("POST", path("webhooks", name, "try"), lambda body: bool(body["tried"]))


def check_invariants(self: object) -> Call[types.Checked]:
    """Checks the database, and repairs it."""
    return Call("POST", path("invariants", "check"), types.Checked)


def openapi(self: object) -> Call[Record]:
    """The OpenAPI document of this server."""
    return Call("GET", path("openapi.json"), Record)


def health(self: object) -> Call[types.Status]:
    """The process is up."""
    return Call("GET", "/healthz", types.Status)


def ready(self: object) -> Call[types.Status]:
    """The store takes a write."""
    return Call("GET", "/readyz", types.Status)


def metrics(self: object) -> Call[str]:
    """The metrics, as text for Prometheus."""
    return Call("GET", "/metrics", str)
