-- Heartbeats of a holder with 64 locks.
wrk.headers["X-User-Id"] = "bench"
local number = 0
request = function()
  number = (number + 1) % 64
  return wrk.format("POST", "/api/v1/workspaces/w" .. number .. "/lock/heartbeat")
end
