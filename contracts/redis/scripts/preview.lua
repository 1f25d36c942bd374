-- Publishes a preview of a running job; returns 1, or 0 where the lease was lost.
if not holds_lease(arguments.id, arguments.execution) then return 0 end
emit(arguments.id, 'preview', arguments.preview)
return 1
