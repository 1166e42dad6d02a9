-- The wrk script of ci/bench.sh. Environment variables describe the request: METHOD, TARGET, KEY and BODY.
-- %d in TARGET is replaced by a random number from FIRST to LAST.

local key, body = os.getenv("KEY"), os.getenv("BODY")
local target = os.getenv("TARGET")

wrk.method = os.getenv("METHOD")
if key ~= "" then wrk.headers["Octopus-API-Key"] = key end
if body ~= "" then
  wrk.body = body
  wrk.headers["Content-Type"] = "application/json"
end

if target:find("%%d") then
  local first, last = tonumber(os.getenv("FIRST")), tonumber(os.getenv("LAST"))
  request = function()
    return wrk.format(nil, target:format(math.random(first, last)))
  end
else
  wrk.path = target
end

function done(summary, latency, _)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("measured %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status, broken))
end
