-- workers.lua: who serves what. A prelude: other scripts follow it.
--
--   <workers>  zset  worker -> the moment its last sign of life is outdated
--   <serving>  hash  worker -> the quoted names of its queues, one per line
--
-- Both expire with the last sign of life.

local function sign_of_life(workers, serving, worker, queues, time, lease)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', time)) do
    redis.call('ZREM', workers, gone)
    redis.call('HDEL', serving, gone)
  end
  if queues == '' then
    redis.call('ZREM', workers, worker)
    redis.call('HDEL', serving, worker)
    return
  end
  redis.call('ZADD', workers, time + lease, worker)
  redis.call('HSET', serving, worker, queues)
  local last = redis.call('ZRANGE', workers, -1, -1, 'WITHSCORES')
  local expires = string.format('%.0f', math.ceil(last[2] * 1000))
  redis.call('PEXPIREAT', workers, expires)
  redis.call('PEXPIREAT', serving, expires)
end
