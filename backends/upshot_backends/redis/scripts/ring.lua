-- ring.lua (after queue.lua): wakes one fetcher.
--
-- KEYS: the base name of a queue; its bell (see `RedisBroker._keys` for why).
-- Returns nothing.

ring(KEYS[1])
