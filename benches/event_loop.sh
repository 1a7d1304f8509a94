#!/usr/bin/env bash
# Compares the event loop with tiny_http alone: a constant answer over persistent connections, ROUNDS rounds of
# SECONDS_EACH at each number of connections. Then measures the event loop while one client calls a handler that takes
# 200 ms in a loop. Needs wrk, curl and python3.
# Prints: round, server, connections, requests per second, p50, p99, answers that were not 2xx or 3xx.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-4} connections=${CONNECTIONS:-"1 16 64 256"}
servers=${SERVERS:-"raw event-loop slow"}

baselines=$(cargo bench --bench baselines --no-run --message-format json 2>/dev/null |
  grep -o '"executable":"[^"]*baselines[^"]*"' | tail -n 1 | cut -d'"' -f4)
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
"$baselines" raw 127.0.0.1:7321 & pids+=($!)
"$baselines" event-loop 127.0.0.1:7324 >/dev/null & pids+=($!)
sleep 1

# tiny_http may not answer some of several simultaneous connections, unless it has enough idle threads.
warm() {
  python3 - <<'PY'
import socket
open_ones = []
for _ in range(300):
    for _ in range(20):
        one = socket.create_connection(("127.0.0.1", 7321))
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

for round in $(seq "$rounds"); do
  for count in $connections; do
    for server in $servers; do
      port=7324
      [ "$server" = raw ] && { port=7321; warm; }
      if [ "$server" = slow ]; then
        while curl -s -o /dev/null http://127.0.0.1:7324/slow; do :; done &
        looping=$!
      fi
      threads=$((count < 2 ? 1 : 2))
      wrk -t"$threads" -c"$count" -d"${seconds}s" --latency "http://127.0.0.1:$port/healthz" >"$work/wrk"
      [ "$server" = slow ] && { kill "$looping"; wait "$looping" || true; }
      awk -v r="$round" -v s="$server" -v c="$count" '
        /50%/ { p50 = $2 } /99%/ { p99 = $2 } /Requests\/sec/ { rps = $2 } /Non-2xx/ { bad = $NF }
        /Socket errors/ { errors = $0 }
        END { printf "%s %-5s %3s connections %9s/s  p50 %8s  p99 %8s  refused %s%s\n", r, s, c, rps, p50, p99, bad + 0, errors }
      ' "$work/wrk"
    done
  done
done
