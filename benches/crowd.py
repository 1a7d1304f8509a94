#!/usr/bin/env python3
"""Measures memory, threads and request latency with 9,990 waiting connections.

crowd.py PID ADDRESS:PORT idle|hold [COUNT]   idle: kept connections on which one request was answered
                                              hold: requests for /hold, which `baselines event-loop` never answers
Prints memory and threads of the process before and with the waiting connections, and the latency of /healthz.
"""
import select, socket, sys, time

pid, address, kind = sys.argv[1:4]
# One place is left for the connection that is timed.
count = int(sys.argv[4]) if len(sys.argv) > 4 else 9_990
host, port = address.rsplit(":", 1)


def status():
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return f"{int(fields['VmRSS'].split()[0]) / 1024:.1f} MB, {fields['Threads'].strip()} threads"


def latency():
    one = socket.create_connection((host, int(port)))
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(2_000):
        start = time.perf_counter()
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n")
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return f"p50 {times[1_000]:.3f} ms, p99 {times[1_980]:.3f} ms"


path = b"/healthz" if kind == "idle" else b"/hold"
print("before:", status(), "|", latency())
start = time.perf_counter()
crowd = []
for _ in range(count):
    one = socket.create_connection((host, int(port)))
    one.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: b\r\n\r\n")
    if kind == "idle":
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
    crowd.append(one)
print(f"{count} connections in {time.perf_counter() - start:.1f} s")
print("with the crowd:", status(), "|", latency())
poll = select.poll()
for one in crowd:
    poll.register(one, select.POLLIN)
print("of them were closed or answered:", len(poll.poll(0)))
for one in crowd:
    one.close()
time.sleep(1)
print("after:", status(), "|", latency())
