-- settle.lua (after queue.lua): ends deliveries, each in one step.
--
-- KEYS: base names of queues; in a cluster one name more.
-- ARGV: per delivery its queue (a number into KEYS), id, token, action ("ack", "replace",
--       "release" or "bury") and reason; then what takes its place: queue, id, body, priority and
--       eta as in publish.lua, or five times "".
-- Returns per delivery 1 if the token was the current one, otherwise 0.

local PER_DELIVERY = 10

local time = now()
local answers = {}

local function settle(at)
  local base, id, token, action = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local place, deliveries, current = read_meta(base, id)
  if current == '' or current ~= token then
    return 0
  end
  if action == 'release' then
    give_back(base, id, place, deliveries - 1)
    ring(base)
    return 1
  end
  if action == 'bury' then
    redis.call('HSET', base .. '/dead', id, redis.call('HGET', base .. '/messages', id))
    redis.call('HSET', base .. '/reasons', id, ARGV[at + 4])
  end
  redis.call('ZREM', base .. '/leased', id)
  redis.call('HDEL', base .. '/meta', id)
  redis.call('HDEL', base .. '/messages', id)
  if action == 'replace' then
    local priority, eta = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9])
    enqueue(KEYS[tonumber(ARGV[at + 5])], ARGV[at + 6], ARGV[at + 7], priority, eta, time)
  end
  tidy(base)
  return 1
end

for at = 1, #ARGV, PER_DELIVERY do
  answers[#answers + 1] = settle(at)
end
return answers
