-- ring.lua (after queue.lua): wakes one fetcher.
--
-- KEYS: the base name of a queue.
-- Returns nothing.

ring(KEYS[1])
