-- store.lua (after pubsub.lua or sharded.lua, guard.lua): writes records in order, each under the guard.
--
-- KEYS: the records' keys; in a cluster, one.
-- ARGV: the suffix that makes a key its channel; then per key its rank, value and expiry in
--       milliseconds (0: none).
-- Returns per key 1 if it was written, otherwise 0. Terminal records are published.

local applied = {}
for i, key in ipairs(KEYS) do
  local at = 3 * i - 1
  applied[i] = store(key, key .. ARGV[1], ARGV[at], ARGV[at + 1], ARGV[at + 2])
end
return applied
