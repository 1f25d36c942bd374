-- Returns `queue_snapshot` of snapshot.lua.
return queue_snapshot()
