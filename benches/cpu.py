#!/usr/bin/env python3
"""Measures the CPU time per request of servers, side by side in one run.

    benches/cpu.py [--rounds 5] [--seconds 3] [--server NAME=PATH]...

Each --server is a `lockhouse` binary; without one it is target/release/lockhouse. Beside them run `tiny_http` alone with a
constant answer (`raw`) and commits without HTTP (`commit`), see baselines.rs. Prints medians for each kind of request and number of
connections: user and system time of the whole process, context switches and bytes written, each per request, and requests
per second. A renewal in a batch of 100 counts as one request. Needs wrk and a release build of both
(`cargo build --release`, `cargo bench --bench baselines --no-run`).
"""
import argparse, glob, json, os, re, statistics, subprocess, tempfile, time, urllib.request

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")
# Kind, connections, script, requests that one HTTP request counts for.
WORK = [("heartbeat", 64, "requests.lua", 1), ("heartbeat", 1, "requests.lua", 1), ("pairs", 64, "pairs.lua", 1),
        ("batch", 4, "requests.lua", 100), ("read", 64, "requests.lua", 1)]


def usage(pid):
    """CPU seconds, context switches and bytes written of a process. The CPU time includes ended threads."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / TICK
    switches = 0
    for status in glob.glob(f"/proc/{pid}/task/*/status"):
        try:
            with open(status) as file:
                switches += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
        except FileNotFoundError:
            continue
    with open(f"/proc/{pid}/io") as file:
        written = next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))
    return cpu, switches, written


def run(pid, port, kind, connections, script, counts, seconds):
    before = usage(pid)
    threads = "1" if connections == 1 else "2"
    command = ["wrk", "-t", threads, "-c", str(connections), "-d", f"{seconds}s", "-s", f"{HERE}/benches/{script}",
               f"http://127.0.0.1:{port}", "--", kind]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = usage(pid)
    requests = int(re.search(r"(\d+) requests in", output)[1]) * counts
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", output):
        raise SystemExit(f"{kind}: {bad[0]}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]) * counts
    cpu, switches, written = (later - sooner for later, sooner in zip(after, before))
    return cpu / requests * 1e6, switches / requests, written / requests, rate


def commit(baselines, folder, count=4000):
    child = subprocess.Popen([baselines, "commit", f"{folder}/commit-{time.time_ns()}.db", str(count)])
    _, _, used = os.wait4(child.pid, 0)
    return (used.ru_utime + used.ru_stime) / count * 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--server", action="append", metavar="NAME=PATH")
    parser.add_argument("--baselines", help="the executable of baselines.rs")
    arguments = parser.parse_args()
    servers = dict(server.split("=", 1) for server in arguments.server or [f"lockhouse={HERE}/target/release/lockhouse"])
    baselines = arguments.baselines or max(
        (path for path in glob.glob(f"{HERE}/target/release/deps/baselines-*") if os.access(path, os.X_OK)), key=os.path.getmtime)
    children, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            ports = {"raw": 7341}
            children.append(subprocess.Popen([baselines, "raw", "127.0.0.1:7341"]))
            pids = {"raw": children[0].pid}
            for number, (name, path) in enumerate(servers.items()):
                ports[name] = 7342 + number
                child = subprocess.Popen([path, "serve", "--listen", f"127.0.0.1:{ports[name]}", "--database", f"{folder}/{name}.db"],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                children.append(child)
                pids[name] = child.pid
            time.sleep(1)
            for name in servers:
                for lock in range(100):
                    request = urllib.request.Request(f"http://127.0.0.1:{ports[name]}/api/v1/workspaces/w{lock}/lock",
                                                     method="POST", headers={"X-User-Id": "bench"})
                    json.load(urllib.request.urlopen(request))
            for _ in range(arguments.rounds):
                found.setdefault(("commit", 1, "commit"), []).append((commit(baselines, folder), 0, 0, 0))
                for kind, connections, script, counts in WORK:
                    for name, port in ports.items():
                        if name == "raw" and kind not in ("heartbeat", "read"):
                            continue
                        measured = run(pids[name], port, kind, connections, script, counts, arguments.seconds)
                        found.setdefault((kind, connections, name), []).append(measured)
        finally:
            for child in children:
                child.kill()
                child.wait()
    print(f"{'request':<10} {'conn':>4} {'server':<12} {'CPU us':>8} {'x raw':>6} {'switches':>8} {'bytes':>8} {'per s':>8}")
    for (kind, connections, name), rows in found.items():
        cpu, switches, written, rate = (statistics.median(column) for column in zip(*rows))
        raw = found.get((kind, connections, "raw"))
        ratio = f"{cpu / statistics.median(row[0] for row in raw):6.2f}" if raw else "     -"
        print(f"{kind:<10} {connections:>4} {name:<12} {cpu:8.1f} {ratio} {switches:8.1f} {written:8.0f} {rate:8.0f}")


if __name__ == "__main__":
    main()
