-- pubsub.lua: how a hint is published on one server. A prelude: other scripts follow it.

local PUBLISH = 'PUBLISH'
