#!/usr/bin/env python3
"""Many who follow the events of a workspace each: how soon the loser of a lock hears of a takeover.

followers.py PID ADDRESS:PORT [FOLLOWERS [TAKEOVERS]]
Prints memory and threads of the process, and the time from sending a takeover to the event arriving at the follower
of that workspace: median, p99, the longest.
"""
import random, select, socket, sys, time

pid, address = sys.argv[1:3]
count = int(sys.argv[3]) if len(sys.argv) > 3 else 2_000
takeovers = int(sys.argv[4]) if len(sys.argv) > 4 else 2_000
host, port = address.rsplit(":", 1)


def connect():
    one = socket.create_connection((host, int(port)))
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


def status():
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return f"{int(fields['VmRSS'].split()[0]) / 1024:.1f} MB, {fields['Threads'].strip()} threads"


def acquire(one, workspace, user):
    one.sendall(
        f"POST /api/v1/workspaces/{workspace}/lock?force=true HTTP/1.1\r\nHost: b\r\nX-User-Id: {user}\r\n\r\n".encode()
    )


asks = connect()
for number in range(count):
    acquire(asks, f"f{number}", "alice")
    assert b" 200 " in asks.recv(65536)
print("before:", status())
followers = []
for number in range(count):
    one = connect()
    one.sendall(f"GET /api/v1/events?workspace_id=f{number} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
    heard = b""
    while b"still here" not in heard:
        heard += one.recv(65536)
    followers.append(one)
print(f"with {count} followers:", status())
times = []
for turn in range(takeovers):
    number = random.randrange(count)
    start = time.perf_counter()
    acquire(asks, f"f{number}", f"user-{turn}")
    heard = b""
    while b"lock.taken_over" not in heard:
        heard += followers[number].recv(65536)
    times.append((time.perf_counter() - start) * 1e3)
    assert b" 200 " in asks.recv(65536)
times.sort()
print(f"told after: p50 {times[takeovers // 2]:.2f} ms, p99 {times[takeovers * 99 // 100]:.2f} ms, max {times[-1]:.2f} ms")
