#!/usr/bin/env python3
"""Soak test of the event stream: followers connect, stall and resume; each must receive every event once, in order.

soak.py ADDRESS:PORT [SECONDS [FOLLOWERS]]
A third of the followers follow all workspaces, the others one each. Each repeatedly listens, stalls for up to three
seconds, or disconnects and resumes with Last-Event-ID up to three seconds later. A follower of all workspaces must
receive each revision; a follower of one workspace, all events of its history.
"""
import asyncio, json, random, sys, time

address = sys.argv[1]
seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 600
count = int(sys.argv[3]) if len(sys.argv) > 3 else 300
host, port = address.rsplit(":", 1)
WORKSPACES = 20
end = time.monotonic() + seconds
tally = {"events": 0, "connections": 0, "stalls": 0, "resets": 0, "writes": 0}


async def ask(streams, method, path, user):
    reader, writer = streams
    writer.write(f"{method} /api/v1/{path} HTTP/1.1\r\nHost: s\r\nX-User-Id: {user}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


async def write(number):
    streams = await asyncio.open_connection(host, int(port))
    while time.monotonic() < end:
        workspace = f"workspaces/s{random.randrange(WORKSPACES)}/lock"
        await ask(streams, "POST", workspace + random.choice(["", "?force=true"]), f"user-{number}")
        if random.random() < 0.5:
            await ask(streams, "DELETE", workspace, f"user-{number}")
        tally["writes"] += 1
        await asyncio.sleep(random.random() * 0.02)
    streams[1].close()


async def listen(heard, last, query, until):
    """Listens on one connection until it ends or the time is over."""
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 14)
    tally["connections"] += 1
    resume = f"Last-Event-ID: {last[0]}\r\n" if last[0] is not None else ""
    writer.write(f"GET /api/v1/events{query} HTTP/1.0\r\n{resume}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    number = kind = None
    try:
        while time.monotonic() < until:
            line = await asyncio.wait_for(reader.readline(), 40)
            if not line:
                return False
            if line.startswith(b"id: "):
                number = int(line[4:])
            elif line.startswith(b"event: "):
                kind = line[7:].strip()
            elif line == b"\n" and number is not None:
                if kind == b"reset":
                    tally["resets"] += 1
                    heard.clear()
                else:
                    heard.append(number)
                    tally["events"] += 1
                last[0], number = number, None
            if random.random() < 0.0005:
                tally["stalls"] += 1
                await asyncio.sleep(random.random() * 3)
    finally:
        writer.close()
    return False


async def follow(number):
    workspace = None if number % 3 == 0 else f"s{number % WORKSPACES}"
    query = f"?workspace_id={workspace}" if workspace else ""
    heard, last = [], [0]
    while time.monotonic() < end:
        await listen(heard, last, query, min(end + 3, time.monotonic() + random.random() * 20))
        await asyncio.sleep(random.random() * 3)
    # Receive the remaining events.
    await listen(heard, last, query, time.monotonic() + 16)
    for before, after in zip(heard, heard[1:]):
        assert before < after, f"follower {number} heard {after} after {before}"
        assert workspace or after == before + 1, f"follower {number} heard {after} after {before}"
    if workspace:
        streams = await asyncio.open_connection(host, int(port))
        kept, cursor = [], ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            page = json.loads(await ask(streams, "GET", f"workspaces/{workspace}/history?limit=500{more}", "s"))
            kept += [event["revision"] for event in page["events"]]
            cursor = page["next_cursor"]
        kept = [revision for revision in reversed(kept) if heard and revision >= heard[0]]
        assert kept == heard, f"follower {number} heard {len(heard)} of {len(kept)}"


async def main():
    await asyncio.gather(*(write(number) for number in range(4)), *(follow(number) for number in range(count)))
    print("each heard every event once, in order;", tally)


asyncio.run(main())
