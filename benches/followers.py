#!/usr/bin/env python3
"""Measures the latency of takeover events and of grants with many followers and waiters.

followers.py PID ADDRESS:PORT [FOLLOWERS [WAITERS [TURNS]]]
FOLLOWERS follow a workspace each, WAITERS wait for the locks of WAITERS / 20 workspaces. Prints memory and threads of the
process; the time from sending a takeover to the event arriving at the follower of that workspace; and the time from
sending a release to the grant arriving at the first waiter: median, p99, maximum.
"""
import random, socket, sys, time

pid, address = sys.argv[1:3]
follow = int(sys.argv[3]) if len(sys.argv) > 3 else 2_000
wait = int(sys.argv[4]) if len(sys.argv) > 4 else 2_000
turns = int(sys.argv[5]) if len(sys.argv) > 5 else 2_000
host, port = address.rsplit(":", 1)
IN_LINE = 20


def connect():
    one = socket.create_connection((host, int(port)))
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


def status():
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return f"{int(fields['VmRSS'].split()[0]) / 1024:.1f} MB, {fields['Threads'].strip()} threads"


def send(one, method, path, user, body=""):
    user = f"X-User-Id: {user}\r\n" if user else ""
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    one.sendall(f"{method} /api/v1/workspaces/{path} HTTP/1.1\r\nHost: b\r\n{user}{kind}\r\n{body}".encode())


def fine(one):
    answer = one.recv(65536)
    assert b" 200 " in answer, answer


def show(what, times):
    times.sort()
    middle, most = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"{what}: p50 {middle:.2f} ms, p99 {most:.2f} ms, max {times[-1]:.2f} ms")


asks = connect()
for number in range(follow):
    send(asks, "POST", f"f{number}/lock?force=true", "alice")
    fine(asks)
print("before:", status())
followers = []
for number in range(follow):
    one = connect()
    one.sendall(f"GET /api/v1/events?workspace_id=f{number} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
    heard = b""
    while b"still here" not in heard:
        heard += one.recv(65536)
    followers.append(one)
print(f"with {follow} followers:", status())

# Each queue has IN_LINE waiters. A waiter that gets the lock is replaced by a new one at the end.
lines = [[] for _ in range(wait // IN_LINE)]


def come(place, user):
    one = connect()
    send(one, "POST", f"q{place}/lock", user, '{"wait_ms":60000}')
    lines[place].append((one, user))
    # Wait until the server lists the waiter, so that the order is known.
    stands = b""
    while f'"user_id":"{user}"'.encode() not in stands:
        send(asks, "GET", f"q{place}/presence", "")
        stands = asks.recv(65536)


for place in range(len(lines)):
    send(asks, "POST", f"q{place}/lock?force=true", "holder")
    fine(asks)
    for number in range(IN_LINE):
        come(place, f"u{number}-{place}")
holders = ["holder"] * len(lines)
print(f"and {len(lines) * IN_LINE} waiters:", status())

told, granted = [], []
began = time.monotonic()
for turn in range(turns):
    if followers:
        number = random.randrange(follow)
        start = time.perf_counter()
        send(asks, "POST", f"f{number}/lock?force=true", f"user-{turn}")
        heard = b""
        while b"lock.taken_over" not in heard:
            heard += followers[number].recv(65536)
        told.append((time.perf_counter() - start) * 1e3)
        fine(asks)
    if lines and time.monotonic() - began < 50:
        place = random.randrange(len(lines))
        start = time.perf_counter()
        send(asks, "DELETE", f"q{place}/lock", holders[place])
        one, user = lines[place].pop(0)
        answer = one.recv(65536)
        granted.append((time.perf_counter() - start) * 1e3)
        assert b'"acquired"' in answer and f'"locked_by_user_id":"{user}"'.encode() in answer, (user, answer)
        fine(asks)
        one.close()
        send(asks, "POST", f"q{place}/lock/heartbeat", user)
        fine(asks)
        holders[place] = user
        come(place, f"t{turn}")
if told:
    show("the loser hears of a takeover", told)
if granted:
    show("the next has the lock after a release", granted)
