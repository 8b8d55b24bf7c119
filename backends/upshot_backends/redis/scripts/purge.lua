-- purge.lua (after queue.lua): removes some of what is not leased.
--
-- KEYS: the base name of one queue; in a cluster one name more.
-- ARGV: how many messages at most, to bound the time of one call.
-- Returns how many were removed; fewer than asked for when none is left.

local base, left = KEYS[1], tonumber(ARGV[1])
local time = now()
local removed = 0

local function remove(ending, ids)
  for _, id in ipairs(ids) do
    redis.call('ZREM', base .. ending, id)
    redis.call('HDEL', base .. '/messages', id)
    redis.call('HDEL', base .. '/meta', id)
  end
  removed = removed + #ids
  left = left - #ids
end

remove('/ready', left > 0 and redis.call('ZRANGE', base .. '/ready', 0, left - 1) or {})
remove('/delayed', left > 0 and redis.call('ZRANGE', base .. '/delayed', 0, left - 1) or {})
remove(
  '/leased',
  left > 0 and redis.call('ZRANGEBYSCORE', base .. '/leased', '-inf', time, 'LIMIT', 0, left) or {}
)
if left > 0 then
  local dead = redis.call('HLEN', base .. '/dead')
  redis.call('UNLINK', base .. '/dead', base .. '/reasons')
  removed = removed + dead
end
tidy(base)
return removed
