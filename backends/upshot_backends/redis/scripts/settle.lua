-- settle.lua (after pubsub.lua or sharded.lua, guard.lua, queue.lua): stores records, then ends deliveries, each in
-- one step. What stops the script at a record leaves the deliveries as they are.
--
-- KEYS: the base names of the queues, in a cluster one name more; then the records' keys.
-- ARGV: the number of names before the records' keys; the suffix that makes a record's key its channel; then per
--       record its rank, value and expiry in milliseconds (0: none); then per delivery its queue (a number into
--       KEYS), id, token, action ("ack", "replace", "release" or "bury") and reason; then what takes its place:
--       queue, id, body, priority and eta as in publish.lua, or five times "".
-- Returns per record 1 if it was written, otherwise 0; then per delivery 1 if the token was the current one,
-- otherwise 0.

local PER_DELIVERY = 10

local queues, suffix = tonumber(ARGV[1]), ARGV[2]
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

local first = 3
for i = queues + 1, #KEYS do
  answers[#answers + 1] = store(KEYS[i], KEYS[i] .. suffix, ARGV[first], ARGV[first + 1], ARGV[first + 2])
  first = first + 3
end
for at = first, #ARGV, PER_DELIVERY do
  answers[#answers + 1] = settle(at)
end
return answers
