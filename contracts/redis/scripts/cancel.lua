-- Cancels a job; returns what `cancel_job` does.
write_even_if_full()
return cancel_job(arguments.id, arguments.ttl_seconds)
