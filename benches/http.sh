#!/usr/bin/env bash
# Compares Lockhouse with two baselines (see baselines.rs): requests per second and latency over persistent connections,
# ROUNDS rounds of SECONDS_EACH at each number of connections. Needs wrk, curl and python3.
# Prints: round, server, work, connections, requests per second, p50, p99, answers that were not 2xx or 3xx.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-4} connections=${CONNECTIONS:-"1 16 64"}
servers=${SERVERS:-"raw lockhouse pooled"}

cargo build --release --quiet
baselines=$(cargo bench --bench baselines --no-run --message-format json 2>/dev/null |
  grep -o '"executable":"[^"]*baselines[^"]*"' | tail -n 1 | cut -d'"' -f4)
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

start() {
  case $1 in
    raw) "$baselines" raw 127.0.0.1:7321 & pids+=($!) ;;
    lockhouse) target/release/lockhouse serve --listen 127.0.0.1:7322 --database "$work/l.db" >"$work/out" 2>"$work/log" & pids+=($!) ;;
    pooled) "$baselines" pooled 127.0.0.1:7323 "$work/p.db" & pids+=($!) ;;
  esac
}
port() { case $1 in raw) echo 7321 ;; lockhouse) echo 7322 ;; pooled) echo 7323 ;; esac }

# tiny_http may not answer some of several simultaneous connections, unless it has enough idle threads.
warm() {
  python3 - "$1" <<'PY'
import socket, sys
open_ones = []
for _ in range(90):
    for _ in range(20):
        one = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        one.settimeout(0.5)
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n")
        try:
            one.recv(4096)
        except TimeoutError:
            continue
        open_ones.append(one)
        break
PY
}

for server in $servers; do
  start "$server"
done
sleep 1
for server in $servers; do
  [ "$server" = raw ] && continue
  for number in $(seq 0 63); do
    curl -s -o /dev/null -X POST -H 'X-User-Id: bench' "http://127.0.0.1:$(port "$server")/api/v1/workspaces/w$number/lock"
  done
done

for round in $(seq "$rounds"); do
  for count in $connections; do
    for job in ${JOBS:-heartbeats pairs}; do
      for server in $servers; do
        warm "$(port "$server")"
        threads=$((count < 2 ? 1 : 2))
        wrk -t"$threads" -c"$count" -d"${seconds}s" --latency -s "benches/$job.lua" \
          "http://127.0.0.1:$(port "$server")" >"$work/wrk"
        awk -v r="$round" -v s="$server" -v j="$job" -v c="$count" '
          /50%/ { p50 = $2 } /99%/ { p99 = $2 } /Requests\/sec/ { rps = $2 } /Non-2xx/ { bad = $NF }
          END { printf "%s %-9s %-10s %3s connections %9s/s  p50 %8s  p99 %8s  refused %s\n", r, s, j, c, rps, p50, p99, bad + 0 }
        ' "$work/wrk"
      done
    done
  done
done
