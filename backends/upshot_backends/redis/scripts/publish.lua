-- publish.lua (after pubsub.lua or sharded.lua, guard.lua, queue.lua): messages and their records in one step. Redis runs a
-- script undisturbed, and refuses it for want of memory only before its first write.
--
-- KEYS: the base names of the queues, in a cluster one name more; then the records' keys.
-- ARGV: the number of names before the records' keys; the number of messages; the suffix that makes a record's key its
--       channel; then per message its queue (a number into KEYS), id, body, priority and eta
--       (seconds since the epoch, or "" for at once); then per record its rank, value and expiry
--       in milliseconds (0: none).
-- Returns the number of messages.

local queues, messages, suffix = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = now()
local at = 4
for _ = 1, messages do
  local base = KEYS[tonumber(ARGV[at])]
  enqueue(base, ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), time)
  at = at + 5
end
for i = queues + 1, #KEYS do
  store(KEYS[i], KEYS[i] .. suffix, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  at = at + 3
end
return messages
