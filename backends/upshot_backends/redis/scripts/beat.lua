-- beat.lua (after queue.lua, workers.lua): a sign of life, and longer leases.
--
-- KEYS: <workers> and <serving>; then base names of queues.
-- ARGV: the worker; its queues as <serving> holds them, "" to sign off; the lease in seconds;
--       then per delivery its queue (1 for the first of KEYS that is one), id and token.
-- Returns per delivery 1 if the token is the current one, otherwise 0.

local time, lease = now(), tonumber(ARGV[3])
local answers = {}
sign_of_life(KEYS[1], KEYS[2], ARGV[1], ARGV[2], time, lease)
for at = 4, #ARGV, 3 do
  local base, id = KEYS[2 + tonumber(ARGV[at])], ARGV[at + 1]
  local _, _, current = read_meta(base, id)
  local held = current ~= '' and current == ARGV[at + 2]
  if held then
    redis.call('ZADD', base .. '/leased', time + lease, id)
  end
  answers[#answers + 1] = held and 1 or 0
end
return answers
