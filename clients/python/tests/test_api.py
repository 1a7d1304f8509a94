"""Every operation of the API, and the client against the OpenAPI document of the server."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

import lockhouse
from conftest import PATIENCE, Server, eventually
from lockhouse import ApiError, AsyncClient, Client

if TYPE_CHECKING:
    from collections.abc import Iterator

# The method of an operation where it is not the same words.
METHODS = {
    "acquireLock": "acquire",
    "renewLock": "heartbeat",
    "renewLocks": "heartbeat_many",
    "releaseLock": "release",
    "releaseLockByBeacon": "release",
    "handOverLock": "handover",
    "declineKnock": "decline",
    "readPresence": "presence",
    "listLocks": "locks",
    "releaseLocksOfUser": "release_all",
    "passGate": "gate",
    "readHistory": "history",
    "readWholeHistory": "history",
    "followEvents": "events",
    "listWorkspaces": "workspaces",
    "listMembers": "members",
    "whoAmI": "whoami",
    "listTokens": "tokens",
    "listWebhooks": "webhooks",
    "readOpenApi": "openapi",
    "isUp": "health",
    "isReady": "ready",
    "readMetrics": "metrics",
}
# Seconds here, and words of Python.
PARAMETERS = {"ttl_ms": "ttl", "wait_ms": "wait", "from": "from_", "workspace_id": "workspace_id"}
# Those the client gives by itself: pages, the place in a stream, headers beside a query, credentials of a beacon.
OWN = {"cursor", "Last-Event-ID", "X-Lock-Workspace", "X-Lock-Fence", "access_token"}


@pytest.fixture
def alice(server: Server) -> Iterator[Client]:
    with Client(server.url, "alice") as client:
        yield client


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    with Client(server.url, "alice") as client:
        return client.openapi()


def operations(document: Any) -> Iterator[Any]:
    for path, item in document.paths.items():
        # Git and Terraform are the clients of these.
        if path.startswith(("/lfs/", "/terraform/")):
            continue
        for method, operation in item.items():
            if method in ("get", "put", "post", "delete", "patch"):
                yield {**operation, "path": path, "shared": item.get("parameters", [])}


def test_each_operation_has_a_method_with_its_parameters(document: Any) -> None:
    methods = set()
    for operation in operations(document):
        name = operation["operationId"]
        name = METHODS.get(name, re.sub(r"(?<!^)([A-Z])", lambda letter: "_" + letter[1].lower(), name))
        methods.add(name)
        parameters = {parameter["name"] for parameter in operation.get("parameters", []) + operation["shared"]}
        for content in operation.get("requestBody", {}).get("content", {}).values():
            parameters |= content["schema"]["properties"].keys()
        for client in (Client, AsyncClient):
            given = inspect.signature(getattr(client, name)).parameters.keys()
            missing = {PARAMETERS.get(parameter, parameter) for parameter in parameters - OWN} - given
            if name == "events":
                missing -= {"workspace_id"}
            assert not missing, f"{client.__name__}.{name} has no {missing}"
    others = {"lock", "as_user", "close", "send"}
    public = {name for name in vars(Client) | vars(AsyncClient) if not name.startswith("_")}
    assert public - others == methods


def test_both_clients_have_the_same_methods() -> None:
    for name in set(vars(Client)) & set(vars(AsyncClient)):
        if not name.startswith("_"):
            sync, aio = getattr(Client, name), getattr(AsyncClient, name)
            assert list(inspect.signature(sync).parameters) == list(inspect.signature(aio).parameters), name
            assert sync.__doc__ is None or name == "lock" or sync.__doc__ == aio.__doc__, name


def properties(schema: Any) -> set[str]:
    found = set(schema.get("properties", ()))
    for part in schema.get("oneOf", []):
        found |= properties(part)
    return found


def test_each_answer_has_a_type_with_its_fields(document: Any) -> None:
    # What has one field is a method's result, pages are iterators, and an error keeps its whole problem.
    results = {
        "Declined",
        "Deleted",
        "LockState",
        "Released",
        "ReleasedMany",
        "Removed",
        "Revoked",
        "Tried",
        "WebhookList",
    }
    for name, schema in document.components.schemas.items():
        if name in results or name.startswith(("Problem", "Lfs", "Terraform")) or name.endswith("Page"):
            continue
        if not properties(schema):
            continue
        fields: set[str] = set()
        for kind in getattr(lockhouse, name).__mro__:
            fields |= set(getattr(kind, "__annotations__", ()))
        assert not properties(schema) - fields, name
        # They are the attributes of a dict.
        assert not fields & set(dir(dict)), name


def test_the_version_is_the_servers() -> None:
    root = Path(__file__).resolve().parents[3]
    versions = [
        re.search(r'^version = "(.*)"$', (root / name).read_text(), re.MULTILINE)
        for name in ("Cargo.toml", "clients/python/pyproject.toml")
    ]
    assert versions[0]
    assert versions[1]
    assert versions[0][1] == versions[1][1]


def test_a_lease_by_hand(alice: Client, workspace: str) -> None:
    acquired = alice.acquire(workspace, session_id="s", ttl=60, note="by hand", metadata={"a": 1})
    assert (acquired.outcome, acquired.lock.note, acquired.lock.ttl_ms) == ("acquired", "by hand", 60_000)
    fence = acquired.lock.fence
    assert alice.gate(workspace, fence) is True
    assert alice.gate(workspace, fence + 1) is False
    renewed = alice.heartbeat(workspace, fence=fence, session_id="s", active=True)
    assert (renewed.fence, renewed.waiting, renewed.knock) == (fence, 0, None)
    many = alice.heartbeat_many([{"workspace_id": workspace, "fence": fence}, {"workspace_id": f"{workspace}-no"}])
    assert [result.status for result in many.results] == [200, 404]
    with pytest.raises(ApiError) as refused:
        alice.as_user("bob").acquire(workspace)
    assert (refused.value.status, refused.value.code) == (409, "lock_held")
    assert refused.value.problem["lock"].fence == fence
    taken = alice.as_user("bob", "Bob Ünal").acquire(workspace, force=True, expected_fence=fence)
    assert taken.previous is not None
    assert (taken.outcome, taken.previous.fence, taken.lock.locked_by_name) == ("taken_over", fence, "Bob Ünal")
    assert alice.release(f"{workspace}-no") is False
    assert alice.release_all("bob", reason="on holiday") >= 1
    assert alice.read_lock(workspace) is None


def test_a_knock_is_answered(alice: Client, workspace: str) -> None:
    bob = alice.as_user("bob", "Bob")
    with alice.lock(workspace, kind="edit", ttl=60) as lease:
        assert bob.knock(workspace, message="Two minutes, please?").lock.fence == lease.fence
        assert [knock.message for knock in alice.presence(workspace).knocks] == ["Two minutes, please?"]
        eventually(lambda: lease.knock)
        assert lease.knock is not None
        assert lease.knock.user_id == "bob"
        assert alice.decline(workspace, fence=lease.fence) is True
        with pytest.raises(ApiError) as refused:
            bob.knock(workspace)
        assert refused.value.code == "knock_too_soon"
        assert refused.value.retry_after is not None
    fence = alice.acquire(workspace).lock.fence
    carol = alice.as_user("carol")
    carol.knock(workspace)
    handed = alice.handover(workspace, to_user_id="carol", fence=fence)
    assert handed.lock.locked_by_user_id == "carol"
    assert carol.release(workspace) is True


def test_lists_are_read_page_by_page(alice: Client, workspace: str) -> None:
    for n in range(7):
        alice.acquire(f"{workspace}-{n}")
        alice.put_workspace(f"{workspace}-{n}", name=f"Number {n}")
    assert len(list(alice.locks(prefix=f"{workspace}-", limit=2))) == 7
    assert len([one for one in alice.workspaces(limit=3) if one.workspace_id.startswith(workspace)]) == 7
    assert [event.type for event in alice.history(f"{workspace}-0", limit=1)] == ["lock.acquired"]
    recent = alice.history(user_id="alice", type=["lock.acquired", "lock.released"], limit=3)
    first = [next(recent).workspace_id for _ in range(7)]
    assert first == [f"{workspace}-{n}" for n in reversed(range(7))]
    with pytest.raises(TypeError):
        next(alice.history(workspace, user_id="alice"))
    for n in range(7):
        assert alice.delete_workspace(f"{workspace}-{n}")
    assert list(alice.locks(prefix=f"{workspace}-")) == []


def test_workspaces_have_members(alice: Client, workspace: str) -> None:
    assert alice.put_workspace(workspace, name="Design").name == "Design"
    assert alice.read_workspace(workspace).workspace_id == workspace
    assert alice.put_member(workspace, "bob", "editor").role == "editor"
    assert ("bob", "editor") in [(member.user_id, member.role) for member in alice.members(workspace)]
    assert alice.remove_member(workspace, "bob") is True
    assert alice.remove_member(workspace, "bob") is False
    assert alice.delete_workspace(workspace) is True
    with pytest.raises(ApiError) as gone:
        alice.read_workspace(workspace)
    assert gone.value.code == "workspace_not_found"


def test_tokens_are_made_and_revoked(new_server: Callable[..., Server]) -> None:
    server = new_server(auth_mode="token")
    service = server.command("token", "create", "--scope", "service", "--name", "the app")
    with Client(server.url, token=service) as app:
        token = app.create_token(user_id="alice", name="Alice", ttl=900)
        with Client(server.url, token=token.token) as alice:
            assert (alice.whoami().user_id, alice.whoami().scope) == ("alice", "user")
            with alice.lock("w") as lease:
                assert app.as_user("alice").gate("w", lease.fence) is True
                assert app.as_user("bob").gate("w", lease.fence) is False
            admin = server.command("token", "create", "--scope", "admin", "--name", "ci")
            with Client(server.url, token=admin) as administrator:
                assert token.token_id in [one.token_id for one in administrator.tokens()]
            assert app.revoke_token(token.token_id) is True
            with pytest.raises(ApiError) as refused:
                alice.whoami()
            assert refused.value.code == "unauthenticated"


def test_the_server_tells_of_itself(alice: Client) -> None:
    assert (alice.health().status, alice.ready().status) == ("up", "ready")
    assert "lockhouse_http_requests_total" in alice.metrics()
    assert alice.check_invariants().violations == []
    assert alice.webhooks() == []
    assert alice.try_webhook("none") is False


def test_events_go_on_after_the_server_was_away(new_server: Callable[..., Server]) -> None:
    server = new_server()
    with Client(server.url, "alice") as client:
        seen: list[Any] = []

        def follow() -> None:
            for event in client.events("w", since=0):
                seen.append(event)
                if event.type == "lock.revoked":
                    return

        thread = threading.Thread(target=follow)
        thread.start()
        lease = client.acquire("w").lock
        eventually(lambda: seen)
        assert seen[0].lock.fence == lease.fence
        server.kill()
        server.start()
        client.acquire("other")
        client.as_user("bob").acquire("w", force=True)
        client.release("w", force=True, reason="done")
        thread.join(PATIENCE)
        assert [event.type for event in seen] == [
            "lock.acquired",
            "lock.taken_over",
            "lock.acquired",
            "lock.revoked",
        ] or [event.type for event in seen] == ["lock.acquired", "lock.taken_over", "lock.revoked"]
        assert seen[-1].detail["reason"] == "done"
        assert [event.revision for event in seen] == sorted({event.revision for event in seen})


def test_events_that_are_kept_no_longer_are_a_reset(new_server: Callable[..., Server]) -> None:
    async def story() -> None:
        async with AsyncClient(new_server().url, "alice") as client:
            events = client.events(since=999_999)
            assert (await events.__anext__()).type == "reset"
            await events.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE))


def test_a_refused_stream_is_an_error(new_server: Callable[..., Server]) -> None:
    with Client(new_server(auth_mode="token").url, token="wrong") as client, pytest.raises(ApiError) as refused:
        next(client.events())
    assert refused.value.status == 401
