-- What wrk posts: transactions that happened within SPREAD_MS before NOW_MS, in bodies built before
-- the clock starts and sent in turn. A request then costs the client one step along a table.
--
--   wrk ... -s transactions.lua URL -- PATH NOW_MS SPREAD_MS BODIES ITEMS
--
-- ITEMS is 0 for one transaction a body, and else the length of the JSON array.

local SEED = 20260102
local USERS = 10000
local AMOUNT_CENTS_MAX = 999999
local OTHER_CURRENCIES = { "USD", "GBP", "CHF", "BTC" }

-- Seven in eight are in euros.
local function currency()
  if math.random(8) > 1 then
    return "EUR"
  end
  return OTHER_CURRENCIES[math.random(#OTHER_CURRENCIES)]
end

local function transaction(now_ms, spread_ms)
  local cents = math.random(AMOUNT_CENTS_MAX)
  return string.format(
    '{"amount":%d.%02d,"currency":"%s","timestamp":%.0f,"user_id":"u-%d"}',
    math.floor(cents / 100), cents % 100, currency(),
    now_ms - math.random(0, spread_ms - 1), math.random(USERS)
  )
end

local function body(now_ms, spread_ms, items)
  if items == 0 then
    return transaction(now_ms, spread_ms)
  end
  local all = {}
  for i = 1, items do
    all[i] = transaction(now_ms, spread_ms)
  end
  return "[" .. table.concat(all, ",") .. "]"
end

local requests = {}
local count = 0
local sent = 0

function init(arguments)
  local path = arguments[1]
  local now_ms, spread_ms = tonumber(arguments[2]), tonumber(arguments[3])
  count = tonumber(arguments[4])
  local items = tonumber(arguments[5])
  math.randomseed(SEED)
  wrk.headers["Content-Type"] = "application/json"
  for i = 1, count do
    requests[i] = wrk.format("POST", path, nil, body(now_ms, spread_ms, items))
  end
end

function request()
  sent = sent % count + 1
  return requests[sent]
end
