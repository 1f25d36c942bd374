-- Publishes a preview of a running job. Returns 1; 0 if the lease was lost.
if not holds_lease(arguments.id, arguments.execution) then return 0 end
emit(arguments.id, 'preview', arguments.preview)
return 1
