-- Acquire and release in turn, each release of what was acquired 512 requests ago, so that it is there.
local threads = 0
setup = function(thread)
  thread:set("id", threads)
  threads = threads + 1
end
-- Each as a user of their own: nobody may have so many locks at once.
init = function()
  wrk.headers["X-User-Id"] = "bench-" .. id
end
local number = 0
request = function()
  number = number + 1
  local acquire = number % 2 == 0
  local at = acquire and number or number - 513
  return wrk.format(acquire and "POST" or "DELETE", "/api/v1/workspaces/p" .. id .. "-" .. at % 4096 .. "/lock")
end
