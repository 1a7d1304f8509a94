from __future__ import annotations

import asyncio
import copy
import functools
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import httpx

from . import _operations as operations
from ._async_lease import AsyncLease, OnLost
from ._engine import Engine, Identity, log, refusal
from ._errors import LockhouseError, UnreachableError
from ._events import SILENCE, Follower
from ._lease import State, backoff, is_passing

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping

    from typing_extensions import Concatenate, ParamSpec, Self

    from ._types import StreamEvent

    P = ParamSpec("P")

T = TypeVar("T")


def awaiting(
    describe: Callable[Concatenate[Any, P], operations.Call[T]],
) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    @functools.wraps(describe)
    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self.send(describe(self, *args, **kwargs))
        return result

    return method


def listing(
    describe: Callable[Concatenate[Any, P], operations.Pages[T]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    @functools.wraps(describe)
    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        pages, cursor = describe(self, *args, **kwargs), None
        while True:
            items, cursor = await self.send(pages.page(cursor))
            for item in items:
                yield item
            if cursor is None:
                return

    return method


class AsyncClient:
    """A client for asyncio. `url` is the server's, or `unix:PATH`.

    A user is named by `user_id` where the server trusts it (mode `none`), and by a `token` elsewhere. A token of the
    scope `service` needs both. `timeout` is for one request, in seconds. `verify` is that of httpx.
    """

    def __init__(
        self,
        url: str,
        user_id: str | None = None,
        token: str | None = None,
        *,
        user_name: str | None = None,
        timeout: float = 10.0,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        self._identity = Identity(user_id, user_name, token)
        self._engine = Engine(url, timeout, verify)

    def as_user(self, user_id: str, user_name: str | None = None) -> Self:
        """The same client for another user, with the same connections. The token has the scope `service`."""
        other = copy.copy(self)
        other._identity = Identity(user_id, user_name, self._identity.token)
        return other

    def lock(
        self,
        workspace_id: str,
        *,
        ttl: float | None = None,
        wait: float | None = None,
        on_lost: OnLost | None = None,
        kind: str = "run",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        force: bool | None = None,
        expected_fence: int | None = None,
        reason: str | None = None,
    ) -> AsyncLease:
        """A handle for the lock of a workspace, with a session of its own. It is not acquired yet.

        `ttl`: length of the lease in seconds; default: the server's for the kind. It is renewed while it is held.
        `wait`: how many seconds to wait in the line; default: not at all.
        `on_lost` is called once, with the `LockLost`, when the lease is lost.
        """
        operations.lock_path(workspace_id)
        state = State(workspace_id, ttl)
        asked = operations.given(
            kind=kind, note=note, metadata=metadata, force=force, expected_fence=expected_fence, reason=reason
        )
        return AsyncLease(self._engine, self._identity, state, wait=wait, on_lost=on_lost, asked=asked)

    async def events(self, *workspace_ids: str, since: int | None = None) -> AsyncGenerator[StreamEvent, None]:
        """What happens, in order, each event once. It connects again by itself, and goes on where it was.

        `since`: the last known revision; default: only new events. An event of the type `reset` says that some were
        missed because the server keeps them no longer: read the state again.
        """
        follower = Follower(workspace_ids, since)
        failures = 0
        while True:
            failure: BaseException | None = None
            stream = self._follow(follower)
            try:
                async for event in stream:
                    failures = 0
                    yield event
            except (httpx.TransportError, LockhouseError) as error:
                if isinstance(error, LockhouseError) and not is_passing(error):
                    raise
                failure = error
            finally:
                await stream.aclose()
            log.info("the stream of events ended, and is opened again: %s", failure)
            await asyncio.sleep(backoff(failures, failure))
            failures += 1

    async def send(self, call: operations.Call[T]) -> T:
        """Sends the request of an operation, once."""
        return await self._engine.send(call, self._identity)

    async def _follow(self, follower: Follower) -> AsyncGenerator[StreamEvent, None]:
        headers = {**self._identity.headers(), **follower.headers()}
        timeout = httpx.Timeout(self._engine.timeout, read=SILENCE)
        http = self._engine.http()
        async with http.stream("GET", follower.path, params=follower.query, headers=headers, timeout=timeout) as stream:
            if not stream.is_success:
                await stream.aread()
                raise refusal(stream)
            if not stream.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise UnreachableError(f"{stream.url} is no stream of events")
            async for data in stream.aiter_bytes():
                for event in follower.feed(data):
                    yield event

    async def close(self) -> None:
        """Releases what is still held, and closes the connections. A later call opens new ones."""
        await self._engine.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    acquire = awaiting(operations.acquire)
    read_lock = awaiting(operations.read_lock)
    heartbeat = awaiting(operations.heartbeat)
    heartbeat_many = awaiting(operations.heartbeat_many)
    release = awaiting(operations.release)
    handover = awaiting(operations.handover)
    knock = awaiting(operations.knock)
    decline = awaiting(operations.decline)
    presence = awaiting(operations.presence)
    locks = listing(operations.locks)
    release_all = awaiting(operations.release_all)
    gate = awaiting(operations.gate)
    history = listing(operations.history)
    workspaces = listing(operations.workspaces)
    read_workspace = awaiting(operations.read_workspace)
    put_workspace = awaiting(operations.put_workspace)
    delete_workspace = awaiting(operations.delete_workspace)
    members = listing(operations.members)
    put_member = awaiting(operations.put_member)
    remove_member = awaiting(operations.remove_member)
    whoami = awaiting(operations.whoami)
    tokens = listing(operations.tokens)
    create_token = awaiting(operations.create_token)
    revoke_token = awaiting(operations.revoke_token)
    webhooks = awaiting(operations.webhooks)
    try_webhook = awaiting(operations.try_webhook)
    check_invariants = awaiting(operations.check_invariants)
    openapi = awaiting(operations.openapi)
    health = awaiting(operations.health)
    ready = awaiting(operations.ready)
    metrics = awaiting(operations.metrics)
