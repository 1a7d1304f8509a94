from __future__ import annotations

import asyncio
import atexit
import copy
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from . import _operations as operations
from ._async import AsyncClient
from ._async_lease import AsyncLease, OnLost, call_on_lost
from ._engine import log
from ._errors import LockhouseError, LockLost
from ._lease import Handle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Concatenate, ParamSpec, Self

    from ._types import StreamEvent

    P = ParamSpec("P")

T = TypeVar("T")
# How long the end of the program is held up to release what is still held (seconds).
AT_EXIT = 2.0


class Loop:
    """The one thread of a client. Everything asynchronous runs in it: requests, waits and heartbeats."""

    def __init__(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._finish = finish
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Runs it there, and waits. Ctrl-C here cancels it there."""
        if self._pid != os.getpid():
            # Forked: the thread is in the other process, and may have had the lock of this object.
            self._forget()
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="lockhouse", daemon=True)
                self._thread.start()
                atexit.register(self._at_exit)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def is_running(self) -> bool:
        """Whether the thread is in this process and has not been ended."""
        return self._loop is not None and self._pid == os.getpid()

    def close(self, timeout: float | None = None) -> None:
        """Finishes what runs, and ends the thread."""
        if not self.is_running():
            return
        self.run(self._end(), timeout)
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()
            atexit.unregister(self._at_exit)

    async def _end(self) -> None:
        await self._finish()
        # Threads that still wait for an answer learn that there is none.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _at_exit(self) -> None:
        try:
            self.close(AT_EXIT)
        except Exception as error:
            log.info("what was held at the end of the program was not released: %r", error)


class Lease(Handle):
    """A lock that is acquired with `with`, or with `acquire()` and `release()`. Any thread may release it."""

    def __init__(self, loop: Loop, lease: AsyncLease, on_lost: OnLost | None) -> None:
        self._loop = loop
        self._lease = lease
        self._state = lease.state
        self._on_lost = on_lost
        self._lost = threading.Event()
        lease.on_lost = self._tell

    @property
    def lost(self) -> threading.Event:
        """Set when the lease is lost. A new one for each `acquire()`, and a set one in a forked process."""
        if self._state.is_foreign() and not self._lost.is_set():
            self._lost = threading.Event()
            self._lost.set()
        return self._lost

    def acquire(self) -> Self:
        """Acquires the lock. Raises `NotAcquired` if somebody else has it, at once or after the `wait`."""
        lost = threading.Event()

        async def acquire() -> None:
            await self._lease.acquire()
            self._lost = lost

        self._loop.run(acquire())
        return self

    def release(self) -> bool:
        """Releases the lock. False: it was not held any more. It may be repeated after it failed."""
        if self._state.is_foreign():
            return False
        return self._loop.run(self._lease.release())

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.release()
        except LockhouseError as failure:
            log.warning("the lock of %s was not released, and ends by itself: %s", self.workspace_id, failure)
        if self._state.ended and kind is None and not self._state.is_foreign():
            raise LockLost(*self._state.ended.args)

    def _tell(self, lost: LockLost) -> None:
        self._lost.set()
        if self._on_lost is not None:
            # It may take its time: the heartbeats of other leases go on.
            threading.Thread(target=self._call, args=(self._on_lost, lost), name="lockhouse lost", daemon=True).start()

    @staticmethod
    def _call(on_lost: OnLost, lost: LockLost) -> None:
        try:
            call_on_lost(on_lost, lost)
        except Exception:
            log.exception("on_lost failed")


def blocking(
    describe: Callable[Concatenate[Any, P], operations.Call[T]],
) -> Callable[Concatenate[Any, P], T]:
    @functools.wraps(describe)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self._send(describe(self, *args, **kwargs))
        return result

    return method


def listing(
    describe: Callable[Concatenate[Any, P], operations.Pages[T]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    @functools.wraps(describe)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        pages, cursor = describe(self, *args, **kwargs), None
        while True:
            items, cursor = self._send(pages.page(cursor))
            yield from items
            if cursor is None:
                return

    return method


class Client:
    """A client for threads. `url` is the server's, or `unix:PATH`.

    A user is named by `user_id` where the server trusts it (mode `none`), and by a `token` elsewhere. A token of the
    scope `service` needs both. `timeout` is for one request, in seconds. `verify` is that of httpx.

    One client is enough for a program: any thread may use it, and its one thread renews all leases. After a fork the
    child begins anew, without the leases of its parent.
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
        self._client = AsyncClient(url, user_id, token, user_name=user_name, timeout=timeout, verify=verify)
        self._loop = Loop(self._client.close)

    def as_user(self, user_id: str, user_name: str | None = None) -> Self:
        """The same client for another user, with the same connections. The token has the scope `service`."""
        other = copy.copy(self)
        other._client = self._client.as_user(user_id, user_name)
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
    ) -> Lease:
        """A handle for the lock of a workspace, with a session of its own. It is not acquired yet.

        `ttl`: length of the lease in seconds; default: the server's for the kind. It is renewed while it is held.
        `wait`: how many seconds to wait in the line; default: not at all.
        `on_lost` is called once, with the `LockLost`, in a thread of its own, when the lease is lost.
        """
        lease = self._client.lock(
            workspace_id,
            ttl=ttl,
            wait=wait,
            kind=kind,
            note=note,
            metadata=metadata,
            force=force,
            expected_fence=expected_fence,
            reason=reason,
        )
        return Lease(self._loop, lease, on_lost)

    def events(self, *workspace_ids: str, since: int | None = None) -> Iterator[StreamEvent]:
        """What happens, in order, each event once. It connects again by itself, and goes on where it was.

        `since`: the last known revision; default: only new events. An event of the type `reset` says that some were
        missed because the server keeps them no longer: read the state again.
        """
        stream = self._client.events(*workspace_ids, since=since)

        async def following() -> StreamEvent:
            return await stream.__anext__()

        try:
            while True:
                yield self._loop.run(following())
        finally:
            if self._loop.is_running():
                self._loop.run(stream.aclose())

    def close(self) -> None:
        """Releases what is still held, and closes the connections. A later call opens new ones."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: operations.Call[T]) -> T:
        return self._loop.run(self._client.send(call))

    acquire = blocking(operations.acquire)
    read_lock = blocking(operations.read_lock)
    heartbeat = blocking(operations.heartbeat)
    heartbeat_many = blocking(operations.heartbeat_many)
    release = blocking(operations.release)
    handover = blocking(operations.handover)
    knock = blocking(operations.knock)
    decline = blocking(operations.decline)
    presence = blocking(operations.presence)
    locks = listing(operations.locks)
    release_all = blocking(operations.release_all)
    gate = blocking(operations.gate)
    history = listing(operations.history)
    workspaces = listing(operations.workspaces)
    read_workspace = blocking(operations.read_workspace)
    put_workspace = blocking(operations.put_workspace)
    delete_workspace = blocking(operations.delete_workspace)
    members = listing(operations.members)
    put_member = blocking(operations.put_member)
    remove_member = blocking(operations.remove_member)
    whoami = blocking(operations.whoami)
    tokens = listing(operations.tokens)
    create_token = blocking(operations.create_token)
    revoke_token = blocking(operations.revoke_token)
    webhooks = blocking(operations.webhooks)
    try_webhook = blocking(operations.try_webhook)
    check_invariants = blocking(operations.check_invariants)
    openapi = blocking(operations.openapi)
    health = blocking(operations.health)
    ready = blocking(operations.ready)
    metrics = blocking(operations.metrics)
