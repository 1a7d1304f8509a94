"""Sends requests, and heartbeats for all leases of a client. It runs in one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx

from . import _operations as operations
from ._errors import ApiError, LockLost, UnreachableError
from ._lease import State, due, now
from ._types import Record

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

    from ._async_lease import AsyncLease

T = TypeVar("T")
log = logging.getLogger("lockhouse")

# Seconds. The loop looks again at least so often: its timers may stand still while the machine sleeps.
LONGEST_PAUSE = 1.0


@dataclass(frozen=True)
class Identity:
    """Who calls."""

    user_id: str | None
    user_name: str | None
    token: str | None

    def __post_init__(self) -> None:
        if self.user_id is None and self.token is None:
            raise TypeError("who is calling? Give a user_id or a token")

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.user_id is not None:
            headers["X-User-Id"] = quote(self.user_id, safe="")
        if self.user_name is not None:
            headers["X-User-Name"] = quote(self.user_name, safe="")
        return headers


def spawn(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task whose failure nobody needs to look at."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: None if done.cancelled() else done.exception() and None)
    return task


async def wait_for(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Waits so long at most. `asyncio.wait_for` before Python 3.12 may swallow a cancellation."""
    task = spawn(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(seconds, 0))
    except BaseException:
        task.cancel()
        raise
    if done:
        return task.result()
    task.cancel()
    raise asyncio.TimeoutError


class Engine:
    """The connections and the leases of a client."""

    def __init__(self, url: str, timeout: float, verify: bool | ssl.SSLContext) -> None:
        self.timeout = timeout
        self._socket = url[len("unix:") :] if url.startswith("unix:") else None
        self._url = "http://lockhouse" if self._socket else url.rstrip("/")
        self._verify = verify
        self._belongs_to: tuple[int, asyncio.AbstractEventLoop | None] = (0, None)
        self._leases: set[AsyncLease] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beating: asyncio.Task[None] | None = None

    def http(self) -> httpx.AsyncClient:
        """The connections of this process and event loop. Those of another are of no use here."""
        here = (os.getpid(), asyncio.get_running_loop())
        if self._belongs_to != here:
            self._belongs_to = here
            self._leases, self._tasks, self._beating = set(), set(), None
            self._look = asyncio.Event()
            # Requests that wait for a lock never keep a heartbeat from its connection.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
            transport = httpx.AsyncHTTPTransport(uds=self._socket, limits=limits) if self._socket else None
            # Certificates take long to load.
            verify = self._verify if self._url.startswith("https:") else False
            self._http = httpx.AsyncClient(
                base_url=self._url, verify=verify, limits=limits, transport=transport, timeout=None
            )
        return self._http

    async def send(self, call: operations.Call[T], by: Identity, timeout: float | None = None) -> T:
        """Sends one request, once."""
        seconds = self.timeout + call.waits if timeout is None else timeout
        http = self.http()
        request = http.build_request(
            call.method, call.path, params=list(call.query), headers=by.headers(), json=call.body
        )
        try:
            response = await wait_for(http.send(request), seconds)
        except httpx.TransportError as error:
            raise UnreachableError(f"{request.url}: {error or type(error).__name__}") from error
        except asyncio.TimeoutError:
            raise UnreachableError(f"{request.url}: no answer within {seconds:.1f} s") from None
        if response.is_success:
            is_json = response.headers.get("Content-Type", "").startswith("application/json")
            return call.result(response.json(object_hook=Record) if is_json else response.text)
        refused = refusal(response)
        if refused.code in call.refusals:
            return call.refusals[refused.code]
        raise refused

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs on, also when the caller is cancelled."""
        task = spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def register(self, lease: AsyncLease) -> None:
        """Renews this lease from now on."""
        self.http()
        self._leases.add(lease)
        self._look.set()
        if self._beating is None or self._beating.done():
            self._beating = self.spawn(self._beat())

    def unregister(self, lease: AsyncLease) -> None:
        if self._belongs_to[0] == os.getpid():
            self._leases.discard(lease)

    async def _beat(self) -> None:
        """The heartbeats of all leases, for as long as there are some."""
        loop = asyncio.get_running_loop()
        while self._leases:
            self._look.clear()
            pause = LONGEST_PAUSE
            try:
                pause = min(pause, self._look_once(now()))
            except Exception:
                log.exception("a round of heartbeats failed; the next one follows")
            alarm = loop.call_later(pause, self._look.set)
            await self._look.wait()
            alarm.cancel()

    def _look_once(self, at: float) -> float:
        """Ends leases and sends heartbeats that are due. Returns the seconds until something is due."""
        groups: dict[tuple[Identity, float | None], list[AsyncLease]] = defaultdict(list)
        for lease in list(self._leases):
            lost = lease.state.loss(at)
            if lost:
                self.end(lease, lost)
            else:
                groups[lease.identity, lease.state.ttl].append(lease)
        for (identity, ttl), leases in groups.items():
            chosen = due([lease.state for lease in leases], at)
            if chosen:
                for state in chosen:
                    state.sent()
                batch = [lease for lease in leases if lease.state in chosen]
                self.spawn(self._renew(identity, ttl, batch))
        moments = [min(lease.state.beat_at, lease.state.deadline) for lease in self._leases]
        return max(0.0, min(moments, default=at) - at)

    async def _renew(self, identity: Identity, ttl: float | None, leases: list[AsyncLease]) -> None:
        """Sends one heartbeat for several leases."""
        sent_at = now()
        asked = [operations.given(**names(lease.state)) for lease in leases]
        call = operations.heartbeat_many(None, asked, ttl=ttl)
        try:
            answer = await self.send(call, identity, min(lease.state.timeout(sent_at) for lease in leases))
            for lease, result in zip(leases, answer.results):
                # The answer may be late: what was lost or released meanwhile stays so.
                if lease not in self._leases or lease.state.loss(now()):
                    continue
                if result.status == httpx.codes.OK:
                    lease.state.renewed(result, sent_at)
                else:
                    self.end(lease, LockLost.told(lease.state.workspace_id, lease.state.fence, result))
        except Exception as error:
            log.warning("a heartbeat failed; it is repeated until the lease ends: %s", error)
            for lease in leases:
                lease.state.failed(error, now())
        self._look.set()

    def settle(self, lease: AsyncLease) -> None:
        """Tells of a loss now, if that was not done yet."""
        if lease in self._leases and lease.state.ended:
            self.end(lease, lease.state.ended)

    def end(self, lease: AsyncLease, lost: LockLost) -> None:
        self.unregister(lease)
        try:
            lease.end(lost)
        except Exception:
            log.exception("on_lost failed")

    async def close(self) -> None:
        """Releases what is held, finishes what was begun, and closes the connections."""
        if self._belongs_to != (os.getpid(), asyncio.get_running_loop()):
            return
        for lease in list(self._leases):
            self.spawn(lease.release())
        self._leases.clear()
        self._look.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.timeout)
        for task in self._tasks:
            task.cancel()
        await self._http.aclose()
        self._belongs_to = (0, None)


def names(state: State) -> dict[str, Any]:
    """The members that name a lease."""
    return {"workspace_id": state.workspace_id, "fence": state.fence, "session_id": state.session_id}


def refusal(response: httpx.Response) -> ApiError:
    """A refusal, with a body of Lockhouse or of a proxy before it."""
    try:
        body = response.json(object_hook=Record)
    except ValueError:
        body = None
    problem = Record(body) if isinstance(body, dict) and "code" in body else Record(code=f"http_{response.status_code}")
    problem.setdefault("detail", response.reason_phrase or "no reason was given")
    problem["status"] = response.status_code
    try:
        return ApiError(problem, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return ApiError(problem)
