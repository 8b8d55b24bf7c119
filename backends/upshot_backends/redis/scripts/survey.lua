-- survey.lua (after queue.lua): counts; writes nothing.
--
-- KEYS: <workers> and <serving>; then base names of queues.
-- Returns first the live workers, each followed by its queues as <serving> holds them; then per
-- queue how many messages are ready, delayed, leased and dead.

local time = now()
local answer = { {} }
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.17g', time), '+inf')) do
  table.insert(answer[1], worker)
  table.insert(answer[1], redis.call('HGET', KEYS[2], worker) or '')
end
for i = 3, #KEYS do
  local base = KEYS[i]
  local due = redis.call('ZCOUNT', base .. '/delayed', '-inf', time)
  local lost = redis.call('ZCOUNT', base .. '/leased', '-inf', time)
  answer[#answer + 1] = {
    redis.call('ZCARD', base .. '/ready') + due + lost,
    redis.call('ZCARD', base .. '/delayed') - due,
    redis.call('ZCARD', base .. '/leased') - lost,
    redis.call('HLEN', base .. '/dead'),
  }
end
return answer
