"""The dependencies for FastAPI, against a real server."""

import asyncio
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Header

from conftest import PATIENCE, Server
from lockhouse import AsyncClient, AsyncLease, Client
from lockhouse.fastapi import held, locked


def signed_in(x_user: Annotated[str, Header()] = "alice") -> str:
    return x_user


def make_app(client: AsyncClient) -> FastAPI:
    app = FastAPI()
    fence = Annotated[int, held(client, "{name}", signed_in)]
    lease = Annotated[AsyncLease, locked(client, "{name}", ttl=6, note="export")]
    waited = Annotated[AsyncLease, locked(client, "{name}", signed_in, wait=1)]

    @app.put("/{name}")
    async def save(fence: fence) -> int:
        return fence

    @app.post("/{name}/export")
    async def export(name: str, lease: lease) -> Any:
        lease.ensure_held()
        lock = await client.read_lock(name)
        return lock and lock.note

    @app.post("/{name}/lose")
    async def lose(name: str, lease: lease) -> None:
        await client.release(name, force=True)
        await asyncio.sleep(PATIENCE)

    @app.post("/{name}/lose-late")
    def lose_late(name: str, lease: lease) -> None:
        with Client(client._engine._url, "admin") as other:
            other.release(name, force=True)

    @app.post("/{name}/wait")
    async def wait(lease: waited) -> int:
        return lease.fence

    return app


def ask(server: Server, *requests: Any) -> list[Any]:
    """The status and the body of each answer."""

    async def story() -> list[Any]:
        answers = []
        async with AsyncClient(server.url, "the app") as client:
            transport = httpx.ASGITransport(make_app(client))
            async with httpx.AsyncClient(transport=transport, base_url="http://app", timeout=None) as browser:
                for method, path, headers in requests:
                    answer = await browser.request(method, path, headers={k: str(v) for k, v in headers.items()})
                    answers.append((answer.status_code, answer.json()))
        return answers

    return asyncio.run(asyncio.wait_for(story(), PATIENCE))


def test_a_save_needs_the_lease_of_its_user(server: Server, workspace: str) -> None:
    workspace = workspace.replace("/", "-")
    with Client(server.url, "alice", user_name="Alice") as alice:
        lock = alice.acquire(workspace).lock
        fence, path = lock.fence, f"/{workspace}"
        good, bobs, old, missing, wrong = ask(
            server,
            ("PUT", path, {"X-Lock-Fence": fence}),
            ("PUT", path, {"X-Lock-Fence": fence, "X-User": "bob"}),
            ("PUT", path, {"X-Lock-Fence": fence - 1}),
            ("PUT", path, {}),
            ("PUT", path, {"X-Lock-Fence": "x"}),
        )
        assert good == (200, fence)
        assert bobs[0] == 423
        assert bobs[1]["detail"].startswith("Alice has the lock for another ")
        assert old[0] == 409
        assert (missing[0], wrong[0]) == (422, 422)
        alice.release(workspace, fence=fence)
        [late] = ask(server, ("PUT", path, {"X-Lock-Fence": fence}))
        assert late[0] == 409


def test_an_endpoint_holds_a_lock_until_its_answer(server: Server, workspace: str) -> None:
    workspace = workspace.replace("/", "-")
    with Client(server.url, "alice") as alice:
        assert ask(server, ("POST", f"/{workspace}/export", {})) == [(200, "export")]
        assert alice.read_lock(workspace) is None
        with alice.lock(workspace):
            refused, waited = ask(server, ("POST", f"/{workspace}/export", {}), ("POST", f"/{workspace}/wait", {}))
        assert (refused[0], waited[0]) == (423, 423)


def test_an_endpoint_that_loses_the_lock_answers_409(server: Server, workspace: str) -> None:
    workspace = workspace.replace("/", "-")
    lost, late = ask(server, ("POST", f"/{workspace}/lose", {}), ("POST", f"/{workspace}-2/lose-late", {}))
    assert lost[0] == 409
    assert "revoked by the app" in lost[1]["detail"]
    assert late[0] == 409


def test_without_the_lock_server_an_endpoint_answers_503(server: Server, workspace: str) -> None:
    class Nowhere(Server):
        def __init__(self) -> None:
            self.url = "http://127.0.0.1:1"

    answers = ask(Nowhere(), ("PUT", "/w", {"X-Lock-Fence": 1}), ("POST", "/w/export", {}))
    assert [status for status, _ in answers] == [503, 503]
