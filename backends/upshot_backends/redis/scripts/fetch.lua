-- fetch.lua (after queue.lua, workers.lua): leases what is due, in one step.
--
-- KEYS: the base names of the queues; then <workers> and <serving>.
-- ARGV: how many messages at most; the lease in seconds; the worker; its queues as <serving>
--       holds them; what the tokens of this call begin with.
-- Returns first the seconds until something is due next, as text ("" if nothing is known to be);
-- then per message its queue (a number into KEYS), id, body, deliveries and token.

local MOVED = 1000 -- due and lost messages taken from one queue in one call, to bound its time

local limit, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local queues = #KEYS - 2
local time = now()
local heads = {}
local taken = {}

local function look(i)
  local head = redis.call('ZRANGE', KEYS[i] .. '/ready', 0, 0, 'WITHSCORES')
  heads[i] = head[1] and { id = head[1], place = tonumber(head[2]), level = level(head[2]) }
end

local function overdue(key)
  return redis.call('ZRANGEBYSCORE', key, '-inf', time, 'LIMIT', 0, MOVED)
end

local function lease_head(i)
  local base, head = KEYS[i], heads[i]
  redis.call('ZREM', base .. '/ready', head.id)
  local body = redis.call('HGET', base .. '/messages', head.id)
  if not body then -- somebody else removed it; there is nothing to deliver
    redis.call('HDEL', base .. '/meta', head.id)
    return
  end
  local _, deliveries = read_meta(base, head.id)
  local token = ARGV[5] .. #taken
  write_meta(base, head.id, head.place, deliveries + 1, token)
  redis.call('ZADD', base .. '/leased', time + lease, head.id)
  taken[#taken + 1] = { i, head.id, body, deliveries + 1, token }
end

sign_of_life(KEYS[queues + 1], KEYS[queues + 2], ARGV[3], ARGV[4], time, lease)
for i = 1, queues do
  local base = KEYS[i]
  for _, id in ipairs(overdue(base .. '/delayed')) do
    local priority_front = read_meta(base, id)
    redis.call('ZREM', base .. '/delayed', id)
    redis.call('HDEL', base .. '/meta', id)
    append(base, id, priority_front or front(0))
  end
  for _, id in ipairs(overdue(base .. '/leased')) do
    local place, deliveries = read_meta(base, id)
    give_back(base, id, place or front(0), deliveries)
  end
  look(i)
end

while #taken < limit do
  local best
  for i = 1, queues do
    if heads[i] and (not best or heads[i].level < heads[best].level) then
      best = i
    end
  end
  if not best then
    break
  end
  lease_head(best)
  look(best)
end

local due
for i = 1, queues do
  local base = KEYS[i]
  if heads[i] then
    due = time
    if redis.call('LLEN', base .. '/bell') == 0 then
      ring(base) -- there is more: wake the next fetcher
    end
  else
    redis.call('UNLINK', base .. '/bell')
  end
  for _, ending in ipairs({ '/delayed', '/leased' }) do
    local first = redis.call('ZRANGE', base .. ending, 0, 0, 'WITHSCORES')
    if first[2] and (not due or tonumber(first[2]) < due) then
      due = tonumber(first[2])
    end
  end
end
table.insert(taken, 1, due and string.format('%.6f', math.max(0, due - time)) or '')
return taken
