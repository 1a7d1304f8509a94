-- Sends requests of one kind as the holder of 100 locks: `wrk -s benches/requests.lua URL -- heartbeat|read|batch [PREFIX]`.
wrk.headers["X-User-Id"] = "bench"
local kind, prefix, number = "heartbeat", "w", 0
init = function(arguments)
  kind = arguments[1] or kind
  prefix = arguments[2] or prefix
  local locks = {}
  for lock = 0, 99 do
    locks[#locks + 1] = '{"workspace_id":"' .. prefix .. lock .. '"}'
  end
  batch = '{"locks":[' .. table.concat(locks, ",") .. "]}"
end
request = function()
  number = (number + 1) % 64
  if kind == "read" then
    return wrk.format("GET", "/api/v1/workspaces/" .. prefix .. number .. "/lock")
  elseif kind == "batch" then
    return wrk.format("POST", "/api/v1/locks/heartbeat", { ["X-User-Id"] = "bench", ["Content-Type"] = "application/json" }, batch)
  end
  return wrk.format("POST", "/api/v1/workspaces/" .. prefix .. number .. "/lock/heartbeat")
end
