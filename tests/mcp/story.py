"""The story of an agent, by the official client SDK, in each way in which it connects: URL BINARY."""

import asyncio
import json
import sys
import time
import urllib.parse
import urllib.request

from mcp import Client, StdioServerParameters
from mcp.types import Implementation

URL, BINARY = sys.argv[1:]
PATIENCE = 60


def api(method, path, body=None, user="alice"):
    headers = {"X-User-Id": user, "X-User-Name": user.title(), "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/api/v1{path}", data, headers, method=method)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def lock(workspace):
    return api("GET", f"/workspaces/{workspace}/lock")["lock"]


async def eventually(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it does not happen"
        await asyncio.sleep(0.02)
    return found


async def story(mode, version, **options):
    a, b, c = (f"{mode}-{name}" for name in "abc")
    warnings = []

    async def log(params):
        warnings.append(params)

    server = StdioServerParameters(
        command=BINARY, args=["mcp"], env={"LOCKHOUSE_URL": URL, "LOCKHOUSE_USER": "carol"}
    )
    info = Implementation(name="tester", title="Claude", version="1")
    async with Client(server, mode=mode, client_info=info, logging_callback=log, **options) as client:
        assert client.protocol_version == version, client.protocol_version
        assert client.server_info.name == "lockhouse" and "lock_acquire" in client.instructions

        async def call(name, **arguments):
            result = await client.call_tool(name, arguments)
            assert not result.is_error, result
            return result.content[0].text, result.structured_content

        tools = (await client.list_tools()).tools
        names = ["lock_acquire", "lock_ask", "lock_list", "lock_release", "lock_status"]
        assert sorted(tool.name for tool in tools) == names
        assert all(tool.description and tool.input_schema for tool in tools)

        # A free workspace.
        text, said = await call("lock_status", workspace=a)
        assert text == f"Nobody is editing {a}. Acquire its lock before you write to it.", text
        assert said["locked"] is False
        text, said = await call("lock_acquire", workspace=a, note="fixing a typo")
        assert text.startswith(f"You have the lock of {a}, fence {said['fence']}."), text
        held = lock(a)
        assert (held["kind"], held["fence"], held["note"]) == ("agent", said["fence"], "fixing a typo"), held
        assert held["locked_by_user_id"] == "carol" and held["locked_by_name"] == "Claude", held
        text, said = await call("lock_status", workspace=a)
        assert said["held_by_you"] and text.startswith("You have the lock"), text

        # A person is editing.
        fence = api("POST", f"/workspaces/{b}/lock", {"name": "Alice Martin"})["lock"]["fence"]
        text, said = await call("lock_acquire", workspace=b)
        assert text.startswith(f"Alice Martin is editing {b}, active "), text
        assert text.endswith("Do not write to it. Wait, ask, or work elsewhere."), text
        assert said["acquired"] is False and said["holder"]["user_id"] == "alice", said
        text, said = await call("lock_ask", workspace=b, message="two minutes?")
        assert said["asked"] and f"You have asked for {b}" in text, text
        assert lock(b)["knock"]["message"] == "two minutes?"
        text, said = await call("lock_list", prefix=mode)
        assert [entry["workspace"] for entry in said["locks"]] == [a, b], said
        assert "Alice Martin is editing" in text and "You have the lock" in text, text

        # It waits, while other calls are answered.
        waiting = asyncio.create_task(call("lock_acquire", workspace=b, wait=PATIENCE))
        await eventually(lambda: api("GET", f"/workspaces/{b}/presence")["waiting"])
        await call("lock_status", workspace=a)
        api("POST", f"/workspaces/{b}/lock/release", {"fence": fence})
        text, said = await waiting
        assert said["acquired"] and lock(b)["fence"] == said["fence"], text

        # A loss is told by a notification and in the next result, once.
        taken = api("POST", f"/workspaces/{a}/lock", {})
        assert taken["outcome"] == "taken_over", taken
        warning = await eventually(lambda: warnings and warnings[0])
        assert (warning.level, warning.data["workspace"]) == ("warning", a), warning
        text, said = await call("lock_status", workspace=b)
        assert text.startswith(f"You have lost the lock of {a}: taken over by Alice, because people come before agents."), text
        assert [loss["workspace"] for loss in said["lost"]] == [a], said
        text, said = await call("lock_release", workspace=a)
        assert said == {"workspace": a, "released": False, "lost": []}, said
        text, said = await call("lock_release", workspace=b)
        assert said["released"] and lock(b) is None, text

        # What is wrong is an error that the model sees, or one of the protocol.
        result = await client.call_tool("lock_status", {"workspace": ".."})
        assert result.is_error and "Do not write" in result.content[0].text, result
        await call("lock_acquire", workspace=c)
        assert lock(c)
    # The session has ended.
    await eventually(lambda: lock(c) is None)


async def main():
    await story("legacy", "2025-11-25")
    await story("auto", "2026-07-28", log_level="warning")


asyncio.run(main())
