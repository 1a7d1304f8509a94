"""The client for threads, against a real server."""

from __future__ import annotations

import datetime
import functools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

import pytest

from conftest import PATIENCE, Server, eventually
from lockhouse import ApiError, Client, LockLost, NotAcquired, UnreachableError
from lockhouse._engine import Engine
from lockhouse._lease import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def alice(server: Server) -> Iterator[Client]:
    with Client(server.url, user_id="alice", user_name="Alice Martin") as client:
        yield client


@pytest.fixture
def bob(server: Server) -> Iterator[Client]:
    with Client(server.url, user_id="bob") as client:
        yield client


def is_waiting(client: Client, user_id: str) -> bool:
    return user_id in [place.user_id for place in client.presence("w").waiting]


def waits_since(client: Client, workspace: str) -> list[float]:
    """For how many seconds each place in the line has been taken."""
    now = datetime.datetime.now(datetime.timezone.utc)
    places = client.presence(workspace).waiting
    return [
        (now - datetime.datetime.fromisoformat(place.since_at.replace("Z", "+00:00"))).total_seconds()
        for place in places
    ]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lockhouse")]


def renewed_at(client: Client, workspace: str) -> str:
    lock = client.read_lock(workspace)
    assert lock is not None
    return lock.renewed_at


def test_a_lock_is_held_in_the_body_and_free_after_it(alice: Client, bob: Client, workspace: str) -> None:
    with alice.lock(workspace, note="nightly import", metadata={"job": 7}) as lease:
        lock = bob.read_lock(workspace)
        assert lock is not None
        assert (lock.fence, lock.session_id, lock.note) == (lease.fence, lease.session_id, "nightly import")
        assert (lock.locked_by_name, lock.metadata) == ("Alice Martin", {"job": 7})
        assert lock.kind == "run"
        assert 0 < lease.remaining() <= lock.ttl_ms / 1000
        assert not lease.lost.is_set()
        lease.ensure_held()
    assert bob.read_lock(workspace) is None
    assert lease.remaining() == 0
    with pytest.raises(LockLost) as refused:
        lease.ensure_held()
    assert refused.value.reason == "released"
    assert not lease.lost.is_set()


def test_without_wait_a_held_lock_is_refused_at_once(alice: Client, bob: Client, workspace: str) -> None:
    with alice.lock(workspace), pytest.raises(NotAcquired) as refused, bob.lock(workspace):
        pytest.fail("both have it")
    error = refused.value
    assert error.holder == "alice"
    assert error.lock is not None
    assert error.lock.locked_by_name == "Alice Martin"
    assert error.expires_in is not None
    assert 0 < error.expires_in <= error.lock.ttl_ms / 1000


def test_a_wait_ends_with_a_refusal(alice: Client, bob: Client, workspace: str) -> None:
    with alice.lock(workspace):
        began = time.monotonic()
        with pytest.raises(NotAcquired):
            bob.lock(workspace, wait=1.2).acquire()
        assert time.monotonic() - began >= 1.2


def test_a_wait_ends_with_the_lock_and_the_grant_is_claimed(alice: Client, bob: Client, workspace: str) -> None:
    first = alice.lock(workspace).acquire()
    waiting = threading.Thread(target=lambda: second.acquire())
    second = bob.lock(workspace, wait=PATIENCE)
    waiting.start()
    eventually(lambda: alice.presence(workspace).waiting)
    assert first.release()
    waiting.join()
    second.ensure_held()
    assert second.fence > first.fence
    # Unclaimed it would last `claim_within` only.
    assert second.remaining() > 15
    assert second.release()


def test_a_place_in_the_line_is_kept_over_the_longest_wait_of_the_server(new_server: Callable[..., Server]) -> None:
    server = new_server(locks_max_wait="1s")
    with Client(server.url, "a") as a, Client(server.url, "b") as b, Client(server.url, "c") as c:
        first, order = a.lock("w").acquire(), []

        def take(client: Client, name: str) -> None:
            with client.lock("w", wait=PATIENCE):
                order.append(name)

        waiting = []
        for client, name in ((b, "b"), (c, "c")):
            waiting.append(threading.Thread(target=take, args=(client, name)))
            waiting[-1].start()
            eventually(functools.partial(is_waiting, a, name))
        # A request ends after a second. The place is older than that.
        eventually(lambda: min(waits_since(a, "w"), default=0) > 2.5)
        first.ensure_held()
        first.release()
        for thread in waiting:
            thread.join()
        assert sorted(order) == ["b", "c"]


def test_a_lease_is_renewed_by_one_thread_and_one_call_for_all(new_server: Callable[..., Server]) -> None:
    server = new_server()
    with Client(server.url, "alice") as client:
        leases = [client.lock(f"w{n}", ttl=15).acquire() for n in range(20)]
        assert len(threads()) == 1
        before = [renewed_at(client, lease.workspace_id) for lease in leases]
        eventually(lambda: renewed_at(client, "w19") != before[19])
        eventually(lambda: all(lease.remaining() > 10 for lease in leases))
        line = 'lockhouse_http_requests_total{route="renewLocks",status="200"} '
        [calls] = [text[len(line) :] for text in client.metrics().splitlines() if text.startswith(line)]
        assert int(calls) < 10
        assert 'route="renewLock"' not in client.metrics()
    # Closing releases.
    with Client(server.url, "bob") as client:
        assert list(client.locks()) == []
    assert not threads()


def test_a_loss_is_told_once_with_who_and_why(alice: Client, bob: Client, workspace: str) -> None:
    told: list[LockLost] = []
    with pytest.raises(LockLost) as raised, alice.lock(workspace, ttl=6, on_lost=told.append) as lease:
        bob.release(workspace, force=True, reason="maintenance")
        assert lease.lost.wait(PATIENCE)
        with pytest.raises(LockLost):
            lease.ensure_held()
        assert lease.remaining() == 0
    assert (raised.value.reason, raised.value.by_user_id, raised.value.fence) == ("revoked", "bob", lease.fence)
    eventually(lambda: told)
    assert [(lost.reason, lost.by_user_id) for lost in told] == [("revoked", "bob")]
    assert lease.release() is False


def test_a_body_that_raises_hides_no_error(alice: Client, bob: Client, workspace: str) -> None:
    with pytest.raises(ZeroDivisionError), alice.lock(workspace, ttl=6) as lease:
        bob.release(workspace, force=True)
        assert lease.lost.wait(PATIENCE)
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), alice.lock(workspace):
        raise ZeroDivisionError
    assert alice.read_lock(workspace) is None


def test_a_loss_that_no_heartbeat_saw_is_found_on_leaving(alice: Client, bob: Client, workspace: str) -> None:
    stopped = threading.Event()
    with pytest.raises(LockLost) as lost, alice.lock(workspace, kind="edit", ttl=600, on_lost=stopped.set):
        bob.acquire(workspace, force=True)
    assert (lost.value.reason, lost.value.by_user_id) == ("taken_over", "bob")
    assert stopped.wait(PATIENCE)


def test_a_lease_ends_here_when_the_server_is_silent(new_server: Callable[..., Server]) -> None:
    server = new_server()
    with Client(server.url, "alice") as client:
        lease = client.lock("w", ttl=1).acquire()
        server.signal(signal.SIGSTOP)
        assert lease.lost.wait(PATIENCE)
        assert lease.remaining() == 0
        with pytest.raises(LockLost) as lost:
            lease.ensure_held()
        assert lost.value.reason == "expired"
        assert lease.release() is False
        server.signal(signal.SIGCONT)


def test_heartbeats_are_repeated_until_the_lease_ends(new_server: Callable[..., Server]) -> None:
    server = new_server()
    with Client(server.url, "alice") as client:
        lease = client.lock("w", ttl=30).acquire()
        before = lease.fence
        server.kill()
        with pytest.raises(UnreachableError):
            client.whoami()
        # Longer than the first heartbeat takes to come and to fail.
        eventually(lambda: lease.remaining() < 19)
        server.start()
        eventually(lambda: lease.remaining() > 25)
        assert lease.fence == before
        assert not lease.lost.is_set()
        assert lease.release()


def test_the_thread_survives_any_exception(
    alice: Client, workspace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> float:
        raise ZeroDivisionError

    with alice.lock(workspace, ttl=15) as lease:
        with monkeypatch.context() as broken:
            broken.setattr(Engine, "_look_once", fails)
            eventually(lambda: "a round of heartbeats failed" in caplog.text)
        with monkeypatch.context() as broken:
            broken.setattr(State, "renewed", fails)
            eventually(lambda: "a heartbeat failed" in caplog.text)
        eventually(lambda: lease.remaining() > 13)


def test_a_slow_or_failing_on_lost_stops_no_heartbeat(
    alice: Client, bob: Client, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on, begun = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert goes_on.wait(PATIENCE)
        raise ZeroDivisionError

    lost = alice.lock(workspace, ttl=6, on_lost=slow).acquire()
    other = alice.lock(f"{workspace}-other", ttl=9).acquire()
    bob.release(workspace, force=True)
    assert begun.wait(PATIENCE)
    assert lost.lost.is_set()
    before = renewed_at(alice, other.workspace_id)
    eventually(lambda: renewed_at(alice, other.workspace_id) != before)
    goes_on.set()
    eventually(lambda: "on_lost failed" in caplog.text)
    assert other.release()


def test_another_thread_may_release(alice: Client, bob: Client, workspace: str) -> None:
    with alice.lock(workspace) as lease:
        thread = threading.Thread(target=lease.release)
        thread.start()
        thread.join()
        assert bob.read_lock(workspace) is None
        with pytest.raises(LockLost):
            lease.ensure_held()


def test_each_handle_has_a_session_and_may_acquire_again(alice: Client, workspace: str) -> None:
    first, second = alice.lock(workspace), alice.lock(workspace)
    assert first.session_id != second.session_id
    with pytest.raises(LockLost) as nothing:
        _ = first.fence
    assert nothing.value.reason == "not_acquired"
    assert first.release() is False
    with first, pytest.raises(NotAcquired) as refused:
        # The same user's other process is somebody else.
        second.acquire()
    assert refused.value.holder == "alice"
    before = first.fence
    with first:
        assert first.fence > before
        with pytest.raises(RuntimeError):
            first.acquire()


def test_a_failed_release_can_be_repeated(new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockhouse._async_lease.RELEASE", 0.1)
    server = new_server()
    with Client(server.url, "alice") as client, Client(server.url, "bob") as bob:
        lease = client.lock("w", ttl=60).acquire()
        server.kill()
        with pytest.raises(UnreachableError):
            lease.release()
        server.start()
        assert lease.release()
        assert bob.read_lock("w") is None
        # On leaving, what the body did counts: the lease ends by itself.
        with client.lock("w", ttl=60):
            server.kill()
        server.start()


def test_the_lock_of_another_process_is_left_alone_after_a_fork(alice: Client, workspace: str) -> None:
    told: list[LockLost] = []
    with alice.lock(workspace, on_lost=told.append) as lease:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                assert lease.lost.is_set()
                assert lease.remaining() == 0
                with pytest.raises(LockLost) as lost:
                    lease.ensure_held()
                assert lost.value.reason == "forked"
                assert lease.release() is False
                lease.__exit__(None, None, None)
                # The same client works here, with a thread and connections of its own.
                lock = alice.read_lock(workspace)
                assert lock is not None
                assert lock.fence == lease.fence
                session = lease.session_id
                with pytest.raises(NotAcquired):
                    lease.acquire()
                assert lease.session_id != session
                with alice.lock(f"{workspace}-child") as own:
                    own.ensure_held()
                alice.close()
                os.write(write, b"fine")
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read() == b"fine"
        os.waitpid(child, 0)
        lease.ensure_held()
        lock = alice.read_lock(workspace)
        assert lock is not None
        assert lock.fence == lease.fence
    assert told == []


def test_the_next_process_begins_after_the_lease_that_was_ended_by_force(
    alice: Client, bob: Client, workspace: str
) -> None:
    first = alice.lock(workspace, ttl=4).acquire()
    before = alice.read_lock(workspace)
    assert before is not None
    bob.release(workspace, force=True)
    ended_by = time.monotonic() + first.remaining()
    with bob.lock(workspace, ttl=60) as lease:
        # Less the time that the answer took.
        assert time.monotonic() >= ended_by - 1
        assert lease.remaining() > 0
        lease.ensure_held()
    with alice.lock(workspace, ttl=60) as lease:
        assert lease.remaining() > 55


def test_a_lease_can_be_lost_before_the_body_begins(alice: Client, bob: Client, workspace: str) -> None:
    alice.lock(workspace, ttl=60).acquire()
    bob.release(workspace, force=True)
    errors: list[LockLost] = []
    told: list[LockLost] = []

    def waits() -> None:
        try:
            with bob.lock(workspace, ttl=6, on_lost=told.append):
                errors.clear()
        except LockLost as error:
            errors.append(error)

    thread = threading.Thread(target=waits)
    thread.start()
    eventually(lambda: bob.read_lock(workspace))
    alice.release(workspace, force=True)
    thread.join(PATIENCE)
    assert [error.reason for error in errors] == ["revoked"]
    assert told == []


def test_what_a_thread_waits_for_ends_when_the_client_is_closed(alice: Client, server: Server, workspace: str) -> None:
    ended = threading.Event()
    client = Client(server.url, "carol")

    def waits() -> None:
        try:
            client.lock(workspace, wait=3600).acquire()
        except BaseException:
            ended.set()

    with alice.lock(workspace):
        threading.Thread(target=waits, daemon=True).start()
        eventually(lambda: alice.presence(workspace).waiting)
        client.close()
        assert ended.wait(PATIENCE)
        eventually(lambda: not alice.presence(workspace).waiting)


def test_a_socket_is_an_address_too(new_server: Callable[..., Server], tmp_path: Path) -> None:
    server = new_server(listen=f"unix:{tmp_path}/s")
    assert server.url == f"unix:{tmp_path}/s"
    with Client(server.url, "alice") as client, client.lock("w"):
        assert [lock.workspace_id for lock in client.locks()] == ["w"]


def test_wrong_use_is_refused_early(server: Server) -> None:
    with pytest.raises(TypeError, match="user_id or a token"):
        Client(server.url)
    with Client(server.url, "alice") as client:
        for name in ("", ".", ".."):
            with pytest.raises(ValueError, match="cannot be an id"):
                client.lock(name)
        with pytest.raises(ApiError) as refused:
            client.lock("w", ttl=-1).acquire()
        assert (refused.value.status, refused.value.problem["field"]) == (400, "ttl_ms")
    with Client("http://127.0.0.1:1", "alice", timeout=5) as nobody, pytest.raises(UnreachableError):
        nobody.lock("w").acquire()
