-- guard.lua (after pubsub.lua or sharded.lua): the one way a record is written. A prelude: other
-- scripts follow it.
--
-- A record is a string: its barrier in 10 decimal digits, then the encoded record. So the guard
-- reads 10 bytes, however long the record is.
--
-- store(key, channel, rank, value, expires): rank and expires (milliseconds; 0 keeps the record
-- for ever) are decimal text. Returns 1 if the record was written, 0 if the stored one stays.

local NEVER = '2147483647' -- the barrier of a terminal record
local BARRIER = 10
local LONGEST_HINT = 8192 -- longer bodies are read by whoever needs them

local function store(key, channel, rank, value, expires)
  -- pcall, because a foreign type under the key is an error. What holds no barrier is no record
  -- of ours and counts as absent: a task's outcome must not be lost to somebody's stray bytes.
  local stored = redis.pcall('GETRANGE', key, 0, BARRIER - 1)
  local barrier = type(stored) == 'string' and tonumber(stored)
  if barrier and barrier > tonumber(rank) then
    return 0
  end
  if expires == '0' then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'PX', expires)
  end
  if string.sub(value, 1, BARRIER) == NEVER then
    local length = #value - BARRIER
    local whole = length > 0 and length <= LONGEST_HINT
    redis.call(PUBLISH, channel, whole and string.sub(value, BARRIER + 1) or '?')
  end
  return 1
end
