-- sharded.lua: how a hint is published in a cluster, on the node that holds the channel's slot.
-- A prelude in the place of pubsub.lua.

local PUBLISH = 'SPUBLISH'
