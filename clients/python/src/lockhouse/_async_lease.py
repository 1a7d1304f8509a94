"""A lease in an event loop: acquiring it, waiting for it, losing it, releasing it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union

from . import _operations as operations
from ._engine import Engine, Identity, log, spawn
from ._errors import ApiError, LockhouseError, LockLost, NotAcquired
from ._lease import Handle, Phase, State, backoff, is_passing, now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from types import TracebackType

    from typing_extensions import ParamSpec, Self, TypeGuard

    from ._types import Acquired, Lock

    P = ParamSpec("P")

T = TypeVar("T")
OnLost = Union[Callable[[LockLost], object], Callable[[], object]]

# The server's limit for a wait, and after how long it is asked anew so that the place in the line is kept (seconds).
LONGEST_WAIT = 60.0
RENEW_WAIT = 45.0
# How long a release is tried (seconds).
RELEASE = 5.0


def call_on_lost(on_lost: OnLost, lost: LockLost) -> Any:
    """Calls it with the loss, or with nothing if it takes nothing, as `Event.set` does."""
    try:
        inspect.signature(on_lost).bind(lost)
    except TypeError:
        return on_lost()  # type: ignore[call-arg]
    return on_lost(lost)  # type: ignore[call-arg]


def has_ended(error: LockhouseError) -> TypeGuard[ApiError]:
    """Whether the server says that the lease is not the caller's any more."""
    return isinstance(error, ApiError) and error.code in ("not_holder", "lock_not_found", "workspace_not_found")


class AsyncLease(Handle):
    """A lock that is acquired with `async with`, or with `acquire()` and `release()`."""

    def __init__(
        self,
        engine: Engine,
        identity: Identity,
        state: State,
        *,
        wait: float | None,
        on_lost: OnLost | None,
        asked: Mapping[str, Any],
    ) -> None:
        self._engine = engine
        self._state = state
        self._wait = wait
        self._asked = asked
        self._lost: asyncio.Event | None = None
        # The task of the body of `async with`, and whether it was cancelled here.
        self._body: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._releasing: asyncio.Task[bool] | None = None
        self._is_release_sent = False
        self.identity = identity
        self.on_lost = on_lost

    @property
    def state(self) -> State:
        return self._state

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lease is lost. A new one for each `acquire()`."""
        if self._lost is None:
            self._lost = asyncio.Event()
        return self._lost

    async def acquire(self) -> Self:
        """Acquires the lock. Raises `NotAcquired` if somebody else has it, at once or after the `wait`."""
        state = self._state
        state.begin()
        self._lost = asyncio.Event()
        self._is_release_sent = False
        try:
            await self._grant()
            self._engine.register(self)
            await self._drain()
        except BaseException as error:
            self._engine.unregister(self)
            state.phase = Phase.IDLE
            if is_passing(error) or not isinstance(error, LockhouseError):
                # It may have been granted all the same.
                self._engine.spawn(self._give_back())
            raise
        state.phase = Phase.HELD
        return self

    async def release(self) -> bool:
        """Releases the lock. False: it was not held any more. It goes on if it is cancelled, and may be repeated."""
        state = self._state
        if state.is_foreign() or state.phase not in (Phase.HELD, Phase.RELEASING):
            return False
        if state.ended:
            self._engine.settle(self)
            return False
        state.phase = Phase.RELEASING
        self._body = None
        self._engine.unregister(self)
        if self._releasing is None or self._releasing.done():
            self._releasing = self._engine.spawn(self._send_release())
        return await asyncio.shield(self._releasing)

    async def __aenter__(self) -> Self:
        await self.acquire()
        self._cancelled = False
        self._body = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._body = None
        is_ours = self._cancelled and (kind is None or issubclass(kind, asyncio.CancelledError))
        task = asyncio.current_task()
        if self._cancelled and task is not None and hasattr(task, "uncancel") and task.uncancel() > 0:
            # Somebody else has cancelled it, too.
            is_ours = kind is None
        try:
            await self.release()
        except LockhouseError as failure:
            log.warning("the lock of %s was not released, and ends by itself: %s", self.workspace_id, failure)
        if self._state.ended and (kind is None or is_ours):
            raise LockLost(*self._state.ended.args) from error

    def end(self, lost: LockLost) -> None:
        """The lease is lost."""
        self._state.ended = lost
        self.lost.set()
        if self._state.phase is Phase.ACQUIRING:
            return
        if self._body is not None:
            self._cancelled = self._body.cancel()
        if self.on_lost is not None:
            answer = call_on_lost(self.on_lost, lost)
            if inspect.isawaitable(answer):
                self._engine.spawn(_finish(answer))

    async def _send(self, call: operations.Call[T], timeout: float | None = None) -> T:
        return await self._engine.send(call, self.identity, timeout)

    async def _grant(self) -> None:
        """Acquires a lease that can be counted on, or raises."""
        state = self._state
        give_up_at = now() + (self._wait or 0)
        while True:
            sent_at, acquired = await self._stand_in_line(give_up_at)
            received_at = now()
            state.fence = acquired.lock.fence
            state.drained_at = received_at + (acquired.drain_ms or 0) / 1000
            state.renewed(acquired.lock, sent_at)
            if not self._wait or await self._claim(received_at + acquired.lock.expires_in_ms / 1000):
                return
            if now() >= give_up_at:
                raise NotAcquired.by(None)

    async def _claim(self, ends_at: float) -> bool:
        """Claims a lease that was granted after a wait. False: it ended before. When it was granted is not known."""
        state = self._state
        failures = 0
        while now() < ends_at:
            sent_at = now()
            call = operations.heartbeat(
                None, state.workspace_id, fence=state.fence, session_id=state.session_id, ttl=state.ttl
            )
            try:
                state.renewed(await self._send(call, ends_at - sent_at), sent_at)
            except LockhouseError as error:
                if has_ended(error):
                    return False
                if not is_passing(error):
                    raise
                await asyncio.sleep(min(backoff(failures, error), max(ends_at - now(), 0)))
                failures += 1
            else:
                return True
        return False

    async def _stand_in_line(self, give_up_at: float) -> Any:
        """Asks until the lock is granted. Returns when the granted request was sent, and the answer."""
        requests: list[asyncio.Task[Any]] = []
        renew_after = RENEW_WAIT
        held: NotAcquired | None = None
        failures = 0
        try:
            while True:
                begun_at = now()
                left = give_up_at - begun_at
                request = spawn(self._ask(min(left, LONGEST_WAIT) if left > 0 else None))
                requests.append(request)
                # A new request before the old one ends keeps the place in the line.
                ends_at = begun_at + renew_after if left > renew_after else float("inf")
                while not request.done() and now() < ends_at:
                    timeout = None if ends_at == float("inf") else max(ends_at - now(), 0)
                    await asyncio.wait(requests, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                    for done in [old for old in requests if old.done()]:
                        requests.remove(done)
                        # The older request may be the one that is granted.
                        if done.exception() is None:
                            return done.result()
                if not request.done():
                    continue
                error = request.exception()
                pause = 0.0
                if isinstance(error, ApiError) and error.code == "lock_held":
                    held = NotAcquired.by(error.problem["lock"])
                    waited = now() - begun_at
                    # The server's limit is lower: ask earlier.
                    renew_after = max(0.5, min(renew_after, waited * 0.75))
                    pause = 0.0 if waited > 0.25 else backoff(0)
                elif error is not None and is_passing(error):
                    pause = backoff(failures, error)
                    failures += 1
                elif error is not None:
                    raise error
                if now() >= give_up_at:
                    raise held or error or NotAcquired.by(None)
                await asyncio.sleep(min(pause, max(give_up_at - now(), 0)))
        finally:
            for request in requests:
                request.cancel()

    async def _ask(self, wait: float | None) -> Any:
        state = self._state
        call: operations.Call[Acquired] = operations.acquire(
            None, state.workspace_id, session_id=state.session_id, ttl=state.ttl, wait=wait, **self._asked
        )
        # The lease does not count from before there were connections.
        self._engine.http()
        sent_at = now()
        return sent_at, await self._send(call)

    async def _drain(self) -> None:
        """Waits until the process of a lease that was ended by force must have stopped."""
        seconds = self._state.drained_at - now()
        if seconds > 0:
            ended = spawn(self.lost.wait())
            try:
                await asyncio.wait({ended}, timeout=seconds)
            finally:
                ended.cancel()
        lost = self._state.loss(now())
        if lost:
            raise LockLost(*lost.args)

    async def _give_back(self) -> None:
        """Releases a lease that was granted to a caller who does not want it any more."""
        state = self._state
        with contextlib.suppress(LockhouseError):
            lock: Lock | None = await self._send(operations.read_lock(None, state.workspace_id))
            # Without the fence it might end what another process of the user holds.
            if lock and lock.session_id == state.session_id and state.phase is Phase.IDLE:
                await self._send(
                    operations.release(None, lock.workspace_id, fence=lock.fence, session_id=lock.session_id)
                )

    async def _send_release(self) -> bool:
        state = self._state
        give_up_at = now() + RELEASE
        failures = 0
        while True:
            call = operations.release(None, state.workspace_id, fence=state.fence, session_id=state.session_id)
            # The answer to an earlier attempt may have been lost: then there is nothing to release now.
            is_first, self._is_release_sent = not self._is_release_sent, True
            lost = LockLost(state.workspace_id, state.fence, "expired")
            try:
                released = await self._send(call)
            except LockhouseError as error:
                pause = backoff(failures, error)
                if has_ended(error):
                    released = False
                    lost = LockLost.told(state.workspace_id, state.fence, error.problem)
                elif is_passing(error) and now() + pause < give_up_at:
                    failures += 1
                    await asyncio.sleep(pause)
                    continue
                else:
                    raise
            if not released and is_first:
                self.end(lost)
                return False
            state.phase = Phase.RELEASED
            return True


async def _finish(answer: Awaitable[Any]) -> None:
    try:
        await answer
    except Exception:
        log.exception("on_lost failed")
