-- queue.lua: what the scripts of a queue share. A prelude: other scripts follow it.
--
-- A queue has a base name; its keys are the base and one of these endings:
--
--   /messages  hash  message id -> body, wherever the message stands
--   /ready     zset  message ids by place: larger priority first, then first in, first out
--   /delayed   zset  message ids by the moment they are due
--   /leased    zset  message ids by the moment their lease ends
--   /meta      hash  message id -> "<place> <deliveries> <token>"; token is "" unless leased
--   /sequence  string  counts the places given out; gone when the queue is empty
--   /bell      list  one element per fetcher to wake; expires
--   /dead      hash  message id -> body;  /reasons  hash  message id -> why it was buried
--
-- Moments are seconds since the epoch on this server's clock.

local STRIDE = 562949953421312 -- 2^49 places per priority: 10 priorities are exact in a double
local BELL_TOKENS = 64 -- fetchers that one burst wakes at once; each wakes the next after that
local BELL_EXPIRES = 60000 -- milliseconds

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

local function ring(base)
  local bell = base .. '/bell'
  if redis.call('LLEN', bell) < BELL_TOKENS then
    redis.call('RPUSH', bell, '')
    redis.call('PEXPIRE', bell, BELL_EXPIRES)
  end
end

-- The place where a message of this priority would stand if it were alone.
local function front(priority)
  return (9 - priority) * STRIDE
end

-- Returns the level of a place: 0 for priority 9, 9 for priority 0.
local function level(place)
  return math.floor(place / STRIDE)
end

-- Puts a message behind the others of its priority.
local function append(base, id, priority_front)
  local place = priority_front + redis.call('INCR', base .. '/sequence')
  redis.call('ZADD', base .. '/ready', place, id)
end

local function read_meta(base, id)
  local meta = redis.call('HGET', base .. '/meta', id)
  if not meta then
    return nil, 0, ''
  end
  local place, deliveries, token = string.match(meta, '^(%d+) (%d+) (.*)$')
  if not place then -- somebody else wrote it: the message counts as new
    return nil, 0, ''
  end
  return tonumber(place), tonumber(deliveries), token
end

local function write_meta(base, id, place, deliveries, token)
  redis.call('HSET', base .. '/meta', id, string.format('%.0f %d %s', place, deliveries, token))
end

-- Takes a message in unless its id is there already. eta: a moment, or nil for at once.
local function enqueue(base, id, body, priority, eta, time)
  if redis.call('HSETNX', base .. '/messages', id, body) == 0 then
    return
  end
  if eta and eta > time then
    write_meta(base, id, front(priority), 0, '')
    redis.call('ZADD', base .. '/delayed', eta, id)
  else
    append(base, id, front(priority))
  end
  ring(base) -- also for a delayed one: somebody has to learn when it is due
end

-- Puts a message back where it stood before it was leased.
local function give_back(base, id, place, deliveries)
  redis.call('ZREM', base .. '/leased', id)
  redis.call('ZADD', base .. '/ready', place, id)
  if deliveries == 0 then
    redis.call('HDEL', base .. '/meta', id)
  else
    write_meta(base, id, place, deliveries, '')
  end
end

-- Removes what an empty queue does not need.
local function tidy(base)
  if redis.call('EXISTS', base .. '/messages') == 0 then
    redis.call('UNLINK', base .. '/sequence', base .. '/bell')
  end
end
