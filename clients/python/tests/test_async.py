"""The client for asyncio, against a real server."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from typing import TYPE_CHECKING, Any, Callable

import pytest

from conftest import PATIENCE, Server
from lockhouse import AsyncClient, LockLost, NotAcquired, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, PATIENCE * 2))


async def eventually(holds: Callable[[], Awaitable[object]]) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while not await holds():
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.02)


def test_a_lock_is_held_in_the_body_and_free_after_it(server: Server, workspace: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice, AsyncClient(server.url, user_id="bob") as bob:
            async with alice.lock(workspace, ttl=15) as lease:
                lease.ensure_held()
                assert 0 < lease.remaining() <= 15
                with pytest.raises(NotAcquired) as refused:
                    await bob.lock(workspace).acquire()
                assert refused.value.holder == "alice"
                before = await bob.read_lock(workspace)
                assert before is not None
                assert before.fence == lease.fence

                async def is_renewed() -> bool:
                    lock = await bob.read_lock(workspace)
                    return lock is not None and lock.renewed_at != before.renewed_at

                await eventually(is_renewed)
            assert await bob.read_lock(workspace) is None
            with pytest.raises(LockLost):
                lease.ensure_held()

    run(story())


def test_waiters_get_the_lock_one_after_the_other(server: Server, workspace: str) -> None:
    async def story() -> None:
        inside = 0

        async def work(client: AsyncClient) -> int:
            nonlocal inside
            async with client.lock(workspace, wait=PATIENCE) as lease:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0.01)
                inside -= 1
                return lease.fence

        async with AsyncClient(server.url, user_id="alice") as alice, AsyncClient(server.url, user_id="bob") as bob:
            fences = await asyncio.gather(*(work(client) for client in (alice, bob) * 4))
            assert len(set(fences)) == 8

    run(story())


def test_a_loss_cancels_the_body_and_nothing_else(server: Server, workspace: str) -> None:
    told: list[LockLost] = []

    async def on_lost(lost: LockLost) -> None:
        await asyncio.sleep(0)
        told.append(lost)

    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice, AsyncClient(server.url, user_id="bob") as bob:
            other = asyncio.create_task(asyncio.sleep(PATIENCE))
            with pytest.raises(LockLost) as lost:
                async with alice.lock(workspace, ttl=6, on_lost=on_lost) as lease:
                    await bob.release(workspace, force=True)
                    await asyncio.sleep(PATIENCE)
                    pytest.fail("the body was not cancelled")
            assert (lost.value.reason, lost.value.by_user_id) == ("revoked", "bob")
            assert isinstance(lost.value.__cause__, asyncio.CancelledError)
            assert lease.lost.is_set()
            assert not other.done()
            other.cancel()
            # The task goes on as if it had never been cancelled.
            task = asyncio.current_task()
            assert task is not None
            if sys.version_info >= (3, 11):
                assert task.cancelling() == 0

            async def is_told() -> object:
                return told

            await eventually(is_told)

    run(story())
    assert [lost.reason for lost in told] == ["revoked"]


def test_a_body_that_raises_hides_no_error(server: Server, workspace: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice, AsyncClient(server.url, user_id="bob") as bob:
            with pytest.raises(ZeroDivisionError):
                async with alice.lock(workspace, ttl=6):
                    await bob.release(workspace, force=True)
                    try:
                        await asyncio.sleep(PATIENCE)
                    finally:
                        raise ZeroDivisionError
            # One that swallows the cancellation learns of the loss at its end.
            with pytest.raises(LockLost):
                async with alice.lock(workspace, ttl=6):
                    await bob.release(workspace, force=True)
                    with pytest.raises(asyncio.CancelledError):
                        await asyncio.sleep(PATIENCE)

    run(story())


def test_a_cancellation_by_others_is_a_cancellation(server: Server, workspace: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice:
            entered = asyncio.Event()

            async def work() -> None:
                async with alice.lock(workspace):
                    entered.set()
                    await asyncio.sleep(PATIENCE)

            task = asyncio.create_task(work())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await alice.read_lock(workspace) is None

    run(story())


def test_a_cancelled_wait_leaves_the_line_and_takes_nothing(server: Server, workspace: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice, AsyncClient(server.url, user_id="bob") as bob:

            async def is_waiting() -> bool:
                return bool((await alice.presence(workspace)).waiting)

            async def is_free() -> bool:
                return await alice.read_lock(workspace) is None

            async with alice.lock(workspace):
                waiting = asyncio.create_task(bob.lock(workspace, wait=PATIENCE).acquire())
                await eventually(is_waiting)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            # Also when the lock was granted at that very moment.
            await eventually(is_free)

    run(story())


def test_a_granted_lease_that_nobody_wants_any_more_is_given_back(server: Server, workspace: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice:
            send, lease = alice._engine.send, alice.lock(workspace, ttl=600)

            async def answers_late(*arguments: Any) -> Any:
                answer = await send(*arguments)
                if not taking.done():
                    taking.cancel()
                    await asyncio.sleep(0)
                return answer

            alice._engine.send = answers_late  # type: ignore[method-assign, assignment]
            taking = asyncio.create_task(lease.acquire())
            with pytest.raises(asyncio.CancelledError):
                await taking

            async def is_free() -> bool:
                return await alice.read_lock(workspace) is None

            await eventually(is_free)

    run(story())


def test_a_cancelled_release_goes_on_and_can_be_repeated(server: Server, workspace: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice:
            lease = await alice.lock(workspace, ttl=600).acquire()
            releasing = asyncio.create_task(lease.release())
            await asyncio.sleep(0)
            releasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await releasing
            assert await lease.release() in (True, False)
            assert await alice.read_lock(workspace) is None
            assert not lease.lost.is_set()

    run(story())


def test_a_client_is_used_in_one_loop_after_the_other(server: Server, workspace: str) -> None:
    def use() -> None:
        client = AsyncClient(server.url, user_id="alice")

        async def story() -> None:
            async with client.lock(workspace):
                assert (await client.whoami()).user_id == "alice"

        run(story())
        run(story())
        run(client.close())

    with warnings.catch_warnings():
        # A connection of a loop that is closed can only be dropped.
        warnings.simplefilter("ignore", ResourceWarning)
        use()
        gc.collect()


def test_many_waits_take_no_connection_from_heartbeats(server: Server, workspace: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice, AsyncClient(server.url, user_id="bob") as bob:
            own = await bob.lock(f"{workspace}-own", ttl=15).acquire()
            names = [f"{workspace}-{n}" for n in range(3)]
            async with alice.lock(names[0], ttl=60), alice.lock(names[1], ttl=60), alice.lock(names[2], ttl=60):
                # More than the connections that httpx would give.
                waits = [
                    asyncio.create_task(bob.as_user(f"user-{n}").lock(name, wait=PATIENCE).acquire())
                    for name in names
                    for n in range(40)
                ]

                async def all_wait() -> bool:
                    places = [(await alice.presence(name)).waiting for name in names]
                    return sum(map(len, places)) == len(waits)

                await eventually(all_wait)
                before = own.remaining()

                async def is_renewed() -> bool:
                    return own.remaining() > before

                await eventually(is_renewed)
                for wait in waits:
                    wait.cancel()
                await asyncio.wait(waits)
            assert await own.release()

    run(story())


def test_a_server_that_is_away_is_waited_for(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.kill()

    async def story() -> None:
        async with AsyncClient(server.url, user_id="alice") as alice:
            with pytest.raises(UnreachableError):
                await alice.lock("w").acquire()
            waiting = asyncio.create_task(alice.lock("w", wait=PATIENCE).acquire())
            await asyncio.sleep(0.2)
            server.start()
            lease = await waiting
            assert await lease.release()

    run(story())
