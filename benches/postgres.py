#!/usr/bin/env python3
"""Measures servers on PostgreSQL: one and two of them, beside SQLite and beside one transaction per request.

    benches/postgres.py [--seconds 5] [--server PATH]

Starts a PostgreSQL of its own, with fsync. Prints for heartbeats and for pairs of acquire and release, with 1, 16 and 64
connections: requests per second, the latency, and CPU time of the servers and of PostgreSQL per request. Then WAL per
heartbeat, the share of heap-only updates, and how much of the time a writer waits for the row that orders revisions.
`pooled` is one transaction per request on 16 connections, by pgbench and without HTTP. Needs wrk, PostgreSQL and a
release build.
"""
import argparse, glob, json, os, re, shutil, subprocess, tempfile, threading, time, urllib.request

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")
SETS = {"sqlite": [7441], "postgres x1": [7442], "postgres x2": [7443, 7444]}
# What a heartbeat does, in a transaction of its own.
POOLED = """\\set n random(0, 63)
BEGIN;
SELECT pg_advisory_xact_lock(:n);
SELECT extract(epoch FROM clock_timestamp()), m.* FROM meta m;
SELECT * FROM locks WHERE workspace_id = 'a' || :n;
UPDATE locks SET renewed_at = renewed_at + 1, expires_at = expires_at + 1 WHERE workspace_id = 'a' || :n;
COMMIT;
"""


def cpu(pids):
    """CPU seconds of processes and of their children."""
    used = 0
    for stat in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(stat) as file:
                pid, rest = int(stat.split("/")[2]), file.read().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if pid in pids or int(rest[1]) in pids:
            used += int(rest[11]) + int(rest[12])
        if pid in pids:
            used += int(rest[13]) + int(rest[14])
    return used / TICK


class Postgres:
    def __init__(self, folder):
        self.folder, self.bin = folder, max(glob.glob("/usr/lib/postgresql/*/bin"))
        self.user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.getuid() == 0 else []
        os.chmod(folder, 0o777)
        subprocess.run([*self.user, f"{self.bin}/initdb", "-D", f"{folder}/data", "-U", "lockhouse", "-A", "trust", "-E", "UTF8", "--locale=C"],
                       check=True, stdout=subprocess.DEVNULL, cwd=folder)
        self.child = subprocess.Popen(
            [*self.user, f"{self.bin}/postgres", "-D", f"{folder}/data", "-k", folder, "-c", "listen_addresses=", "-c", "shared_buffers=128MB",
             "-c", "max_wal_size=4GB"], stderr=subprocess.DEVNULL, cwd=folder)
        while subprocess.run(["psql", "-h", folder, "-U", "lockhouse", "-d", "postgres", "-c", "SELECT 1"], capture_output=True).returncode:
            time.sleep(0.1)

    def sql(self, database, sql):
        found = subprocess.run(["psql", "-qAt", "-h", self.folder, "-U", "lockhouse", "-d", database, "-c", sql], capture_output=True, text=True, check=True)
        return found.stdout.strip()

    def url(self, database):
        return f"postgres://lockhouse@{self.folder.replace('/', '%2F')}/{database}"


def load(ports, kind, connections, seconds):
    """Runs wrk on each port, with its share of the connections. Returns requests per second and the latencies in ms."""
    outputs = [""] * len(ports)

    def one(place, port):
        share = max(1, connections // len(ports))
        script, names = ("pairs.lua", [f"{'abc'[place]}x"]) if kind == "pairs" else ("requests.lua", [kind, "abc"[place]])
        command = ["wrk", "--latency", "-t", "1", "-c", str(share), "-d", f"{seconds}s", "-s", f"{HERE}/benches/{script}", f"http://127.0.0.1:{port}", "--", *names]
        outputs[place] = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    threads = [threading.Thread(target=one, args=place) for place in enumerate(ports)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    factor = {"us": 0.001, "ms": 1, "s": 1000}
    latency = lambda output, share: (lambda found: float(found[1]) * factor[found[2]])(re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", output))
    for output in outputs:
        if kind != "pairs" and "Non-2xx" in output:
            raise SystemExit(output)
    total = sum(int(re.search(r"(\d+) requests in", output)[1]) for output in outputs)
    rate = sum(float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]) for output in outputs)
    return total, rate, max(latency(output, 50) for output in outputs), max(latency(output, 99) for output in outputs)


def start(path, port, folder, url=None):
    environment = {**os.environ, "LOCKHOUSE_LIMITS_LOCKS_PER_USER": "100000", **({"LOCKHOUSE_DATABASE_URL": url} if url else {})}
    # The flag would go before the address.
    command = [path, "serve", "--listen", f"127.0.0.1:{port}", *([] if url else ["--database", f"{folder}/{port}.db"])]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    child.stdout.readline()
    return child


# Samples what the writers do, 200 times a second: how often one was busy, and how often it waited for a row.
SAMPLE = """DO $$ DECLARE busy int := 0; waiting int := 0; s record; BEGIN
  FOR i IN 1..SECONDS * 200 LOOP
    PERFORM pg_stat_clear_snapshot();
    SELECT count(*) FILTER (WHERE state <> 'idle') b, count(*) FILTER (WHERE wait_event_type = 'Lock' AND wait_event <> 'advisory') w INTO s
      FROM pg_stat_activity WHERE application_name = 'lockhouse' AND datname = current_database();
    busy := busy + s.b; waiting := waiting + s.w;
    PERFORM pg_sleep(0.005);
  END LOOP;
  RAISE WARNING 'busy % waiting %', busy, waiting;
END $$"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--server", default=f"{HERE}/target/release/lockhouse")
    arguments = parser.parse_args()
    children, folder = [], tempfile.mkdtemp()
    try:
        postgres = Postgres(folder)
        children.append(postgres.child)
        print(f"{'engine':<12} {'request':<10} {'conn':>4} {'per s':>8} {'p50 ms':>7} {'p99 ms':>7} {'server us':>9} {'database us':>11}")
        for name, ports in SETS.items():
            database = f"bench{len(children)}"
            if name != "sqlite":
                postgres.sql("postgres", f"CREATE DATABASE {database}")
            nodes = [start(arguments.server, port, folder, None if name == "sqlite" else postgres.url(database)) for port in ports]
            children += nodes
            for place, port in enumerate(ports):
                for lock in range(100):
                    asked = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/workspaces/{'abc'[place]}{lock}/lock", method="POST", headers={"X-User-Id": "bench"})
                    json.load(urllib.request.urlopen(asked))
            pids = {node.pid for node in nodes}
            load(ports, "heartbeat", 64, 2)
            for kind in ("heartbeat", "pairs"):
                for connections in (1, 16, 64):
                    before = cpu(pids), cpu({postgres.child.pid})
                    total, rate, half, most = load(ports, kind, connections, arguments.seconds)
                    servers, engine = (1e6 * (later - sooner) / total for later, sooner in zip((cpu(pids), cpu({postgres.child.pid})), before))
                    engine = engine if name != "sqlite" else 0
                    print(f"{name:<12} {kind:<10} {connections:>4} {rate:8.0f} {half:7.2f} {most:7.2f} {servers:9.1f} {engine:11.1f}", flush=True)
            if name == "sqlite":
                continue
            postgres.sql(database, "VACUUM ANALYZE locks")
            postgres.sql(database, "CHECKPOINT")
            load(ports, "heartbeat", 64, 1)
            state = "SELECT (SELECT wal_bytes FROM pg_stat_wal), (SELECT wal_fpi FROM pg_stat_wal), n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'locks'"
            time.sleep(1.5)
            before = [int(value) for value in postgres.sql(database, state).split("|")]
            total, *_ = load(ports, "heartbeat", 64, arguments.seconds)
            time.sleep(1.5)
            wal, pages, updated, hot = (int(later) - sooner for later, sooner in zip(postgres.sql(database, state).split("|"), before))
            print(f"{name}: {wal / total:.0f} bytes of WAL per heartbeat ({pages} full pages), {100 * hot / max(1, updated):.1f} % of {updated} updates are heap-only")
            sampler = subprocess.Popen(["psql", "-h", folder, "-U", "lockhouse", "-d", database, "-c", SAMPLE.replace("SECONDS", str(arguments.seconds))],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            _, rate, *_ = load(ports, "pairs", 64, arguments.seconds + 1)
            busy, waiting = map(int, re.search(r"busy (\d+) waiting (\d+)", sampler.communicate()[1]).groups())
            print(f"{name}: acquire and release at {rate:.0f}/s: a writer waits for the row of meta in {100 * waiting / max(1, busy):.1f} % of {busy} busy samples")
            if name == "postgres x1":
                with open(f"{folder}/pooled.sql", "w") as file:
                    file.write(POOLED)
                before = cpu({postgres.child.pid})
                subprocess.run([f"{postgres.bin}/pgbench", "-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", str(arguments.seconds), "-f", f"{folder}/pooled.sql",
                                "-l", "--log-prefix", f"{folder}/pooled", "-h", folder, "-U", "lockhouse", database], stdout=subprocess.DEVNULL, check=True, cwd=folder)
                took = sorted(int(line.split()[2]) / 1000 for path in glob.glob(f"{folder}/pooled.[0-9]*") for line in open(path))
                used = 1e6 * (cpu({postgres.child.pid}) - before) / len(took)
                print(f"{'pooled':<12} {'heartbeat':<10} {16:>4} {len(took) / arguments.seconds:8.0f} {took[len(took) // 2]:7.2f} {took[len(took) * 99 // 100]:7.2f} {0:9.1f} {used:11.1f}")
            for node in nodes:
                node.terminate()
                node.wait()
    finally:
        for child in reversed(children):
            child.terminate()
            child.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
