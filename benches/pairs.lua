-- Alternates acquire and release. Each release is of a lock acquired 512 requests earlier, so that it exists.
local threads = 0
setup = function(thread)
  thread:set("id", threads)
  threads = threads + 1
end
-- One user per thread, because the number of locks per user is limited. `-- PREFIX` keeps two runs apart.
init = function(arguments)
  prefix = arguments[1] or "p"
  wrk.headers["X-User-Id"] = "bench-" .. prefix .. id
end
local number = 0
request = function()
  number = number + 1
  local acquire = number % 2 == 0
  local at = acquire and number or number - 513
  return wrk.format(acquire and "POST" or "DELETE", "/api/v1/workspaces/" .. prefix .. id .. "-" .. at % 4096 .. "/lock")
end
