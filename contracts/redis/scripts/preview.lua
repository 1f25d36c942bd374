-- Tells a running job's listeners how its image looks by now, if the execution still holds its lease;
-- returns 1, or 0 and nothing is told.
if not holds_lease(arguments.id, arguments.execution) then return 0 end
emit(arguments.id, 'preview', arguments.preview)
return 1
