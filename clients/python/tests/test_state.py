"""Deadlines, heartbeats and the parser of events, without a server and without waiting."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from lockhouse import ApiError, LockLost, NotAcquired, Record, UnreachableError
from lockhouse._events import Follower
from lockhouse._lease import Phase, State, backoff, due, is_passing
from lockhouse._types import Lock


def held(length: float = 30, sent_at: float = 100) -> State:
    state = State("w", None)
    state.begin()
    state.fence = 7
    state.renewed({"expires_in_ms": length * 1000, "knock": None}, sent_at)
    state.phase = Phase.HELD
    return state


def test_a_lease_counts_from_when_the_request_was_sent() -> None:
    state = held(30, sent_at=100)
    assert state.deadline == 130
    assert state.refusal(129.9) is None
    lost = state.refusal(130)
    assert lost is not None
    assert (lost.reason, lost.fence, lost.workspace_id) == ("expired", 7, "w")


def test_what_was_lost_stays_lost_after_a_late_answer() -> None:
    state = held(30, sent_at=100)
    assert state.refusal(131)
    state.renewed({"expires_in_ms": 30_000, "knock": None}, 129)
    assert state.refusal(132)


@pytest.mark.parametrize("length", [1, 3, 30, 600, 86_400])
def test_heartbeats_leave_time_for_a_second_attempt(length: float) -> None:
    state = held(length, sent_at=100)
    assert state.beat_at <= 100 + min(length / 3, 10)
    assert 0 < state.timeout(state.beat_at) <= 10
    assert state.beat_at + state.timeout(state.beat_at) <= state.deadline
    at = state.beat_at
    for _ in range(200):
        state.sent()
        assert due([state], at) == []
        state.failed(UnreachableError("no"), at)
        assert at < state.beat_at < state.deadline
        assert state.beat_at + state.timeout(state.beat_at) <= state.deadline
        at = min(state.beat_at, state.deadline - 0.2)


def test_a_call_has_the_leases_that_are_due_and_those_that_will_be_soon() -> None:
    early, later, fresh, sent = held(30, 100), held(30, 103), held(30, 118), held(30, 100)
    sent.sent()
    assert due([early, later, fresh, sent], 101) == []
    assert due([later, sent, early, fresh], 110.0) == sorted([early, later], key=lambda state: state.beat_at)
    assert len(due([held(30, 100) for _ in range(250)], 111)) == 100


def test_pauses_grow_and_the_server_may_ask_for_more() -> None:
    assert 0.125 <= backoff(0) <= 0.25
    assert 5 <= backoff(50) <= 10
    assert backoff(0, ApiError(Record(status=503, code="busy", detail="busy"), 3.0)) >= 3
    assert backoff(0, ApiError(Record(status=503, code="busy", detail="busy"), 3600.0)) <= 61


def test_an_answer_that_may_change_is_passing() -> None:
    def error(status: int) -> ApiError:
        return ApiError(Record(status=status, code="c", detail="d"))

    assert [is_passing(error(status)) for status in (400, 401, 403, 404, 409, 429, 500, 503, 507)] == [False] * 5 + [
        True
    ] * 4
    assert is_passing(UnreachableError("no"))
    assert not is_passing(ValueError())


def test_errors_survive_pickling_and_say_what_happened() -> None:
    lock = Lock(locked_by_user_id="alice", locked_by_name="Alice Martin", expires_in_ms=2_000)
    errors: list[Any] = [
        NotAcquired.by(lock),
        NotAcquired.by(None),
        LockLost("w", 7, "taken_over", "bob", "Bob"),
        ApiError(Record(status=403, code="forbidden", detail="No."), 1.0),
        UnreachableError("no"),
    ]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert str(errors[0]) == "Alice Martin has the lock for another 2 s, unless it is renewed"
    assert str(errors[2]) == "the lock of w is not held: taken_over by Bob"


def test_events_come_in_any_pieces_and_each_once() -> None:
    stream = 'id: 4\nevent: lock.acquired\ndata: {"type":"lock.acquired","note":"\u2028é"}\n\n: still here\n\n'.encode()
    for size in range(1, len(stream) + 1):
        follower = Follower(["w"], None)
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        events = [event for piece in pieces for event in follower.feed(piece)]
        assert [(event.type, event["note"]) for event in events] == [("lock.acquired", "\u2028é")]
        assert follower.headers()["Last-Event-ID"] == "4"


def test_half_an_event_is_dropped_and_comes_again() -> None:
    follower = Follower([], 3)
    assert follower.headers()["Last-Event-ID"] == "3"
    assert list(follower.feed(b'id: 4\nevent: e\ndata: {"type":"e"}')) == []
    assert follower.headers()["Last-Event-ID"] == "3"
    assert [event.type for event in follower.feed(b'id: 4\nevent: e\ndata: {"type":"e"}\n\n')] == ["e"]


def test_a_stream_that_breaks_before_its_first_event_may_have_missed_some() -> None:
    follower = Follower([], None)
    assert "Last-Event-ID" not in follower.headers()
    assert list(follower.feed(b": hello\n\n")) == []
    follower.headers()
    assert [event.type for event in follower.feed(b": hello\n\n")] == ["reset"]


def test_a_reset_of_the_server_has_a_type_and_a_revision() -> None:
    follower = Follower([], 1)
    [event] = follower.feed(b"id: 9\nevent: reset\ndata: {}\n\n")
    assert (event.type, event.revision) == ("reset", 9)


def test_a_field_is_an_attribute_and_an_item() -> None:
    lock: Any = Lock(fence=7)
    assert lock.fence == lock["fence"] == 7
    # One that may be missing.
    assert lock.note is None
    with pytest.raises(AttributeError, match="Lock has no field fenc"):
        _ = lock.fenc
