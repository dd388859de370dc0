-- Posts bodies from a file, one JSON document a line, in turn. Arguments after wrk's `--`, as key=value:
--   bodies=FILE path=/predict              closed loop: every connection sends as soon as it has its answer
--   ... refused=count                      and count refusals (429, 503, 504), which cost wrk a little time each
--   rate=N samples=FILE id=header|body     open loop: Poisson arrivals at N requests a second
-- In the open loop a sent request takes the earliest arrival that is due, and latency counts from that arrival.
-- The arrival's time travels as the request's id (header `x-request-id`, or @ID@ in the body) and comes back with
-- the answer. wrk's Lua has no clock of its own, so the system's is used through LuaJIT's ffi.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long tv_sec; long tv_nsec; } slipway_timespec;
  int clock_gettime(int clock, slipway_timespec *time);
]]

local threads = {}
local time = ffi.new("slipway_timespec")
local MONOTONIC = 1

local function now()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.tv_sec) + tonumber(time.tv_nsec) * 1e-9
end

local function options_of(arguments)
  local options = { path = "/predict", id = "header" }
  for i = 1, #arguments do
    local key, value = arguments[i]:match("^(%w+)=(.*)$")
    if key then options[key] = value end
  end
  return options
end

local function read_bodies(path)
  local bodies = {}
  for line in io.lines(path) do bodies[#bodies + 1] = line end
  return bodies
end

function setup(thread)
  threads[#threads + 1] = thread
end

local function init_closed(options, bodies)
  local ready, turn = {}, 0
  for i, body in ipairs(bodies) do
    ready[i] = wrk.format("POST", options.path, { ["content-type"] = "application/json" }, body)
  end
  request = function()
    turn = turn % #ready + 1
    return ready[turn]
  end
  if options.refused then
    refused = 0
    response = function(status)
      if status == 429 or status == 503 or status == 504 then refused = refused + 1 end
    end
  end
end

local function init_open(options, bodies)
  local rate, turn = tonumber(options.rate), 0
  local due, first, last = {}, 1, 0
  local in_body = options.id == "body"
  local began = now()
  local next_due = began + 0.05
  math.randomseed(tonumber(options.seed or "7"))
  sent, late = 0, 0
  log = io.open(options.samples, "w")

  delay = function()
    next_due = next_due - math.log(1 - math.random()) / rate
    last = last + 1
    due[last] = next_due
    return math.max(0, math.ceil((next_due - now()) * 1000))
  end

  request = function()
    -- wrk asks for one request before any connection exists, to see whether it is well formed: nothing is due then.
    local at = now()
    if first <= last then at, due[first], first = due[first], nil, first + 1 end
    turn = turn % #bodies + 1
    local id = string.format("%d", (at - began) * 1e6)
    sent = sent + 1
    if now() - at > 0.005 then late = late + 1 end
    log:write(string.format("0 %d 0\n", (at - began) * 1e6))
    local headers = { ["content-type"] = "application/json", ["x-request-id"] = id }
    local body = bodies[turn]
    if in_body then body = body:gsub("@ID@", id) end
    return wrk.format("POST", options.path, headers, body)
  end

  response = function(status, headers, body)
    local id = in_body and body:match('"id" *: *"(%d+)"') or headers["x-request-id"]
    local at = tonumber(id or "")
    local passed = at and math.floor((now() - began) * 1e6 - at) or -1
    log:write(string.format("%d %d %d\n", status, at or -1, passed))
  end
end

function init(arguments)
  local options = options_of(arguments)
  local bodies = read_bodies(options.bodies)
  if options.rate then init_open(options, bodies) else init_closed(options, bodies) end
end

function done(summary, latency, requests)
  local sent, late, turned_away = 0, 0, 0
  for _, thread in ipairs(threads) do
    turned_away = turned_away + (thread:get("refused") or 0)
    sent = sent + (thread:get("sent") or 0)
    late = late + (thread:get("late") or 0)
  end
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, "mean_us": %.1f, ' ..
    '"not_2xx": %d, "socket_errors": %d, "timeouts": %d, "sent": %d, "sent_late": %d, "refused": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency.max, latency.mean, errors.status, errors.connect + errors.read + errors.write, errors.timeout, sent, late,
    turned_away))
end
