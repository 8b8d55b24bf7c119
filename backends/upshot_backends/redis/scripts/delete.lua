-- delete.lua (after pubsub.lua or sharded.lua): removes records and tells whoever waits for them,
-- also where there was no record.
--
-- KEYS: the records' keys.
-- ARGV: the suffix that makes a key its channel.
-- Returns how many keys there were.

local removed = 0
for _, key in ipairs(KEYS) do
  removed = removed + redis.call('UNLINK', key)
  redis.call(PUBLISH, key .. ARGV[1], '')
end
return removed
