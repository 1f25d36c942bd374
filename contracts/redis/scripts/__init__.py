"""The Lua scripts: each is one atomic step, behind `KEY` (see keys.py) and the functions of prelude.lua,
accounts.lua and snapshot.lua.

While Redis' memory is full (`maxmemory`), those run that end or free something, or lead to that; they begin with
`write_even_if_full()`. Those that bring something new are refused (submit, requeue_failed, preview, retain_input,
register_lora, register_file, create_batch, release_flagged, idempotency_begin, idempotency_bind).

submit           accept a job                          claim            lease waiting jobs to a worker
cancel           cancel a job                          extend           extend leases
expire           remove an ended job, leave a tombstone  advance          write progress, read cancellation
queue_snapshot   what times are estimated from         preview          publish a preview
queue_place      the same of one waiting job
stats            jobs by state, queue depths           finish           end a job
due_jobs         lend expired jobs to a sweeper        release          put a job back, unspent
due_inputs       lend unused inputs to a sweeper       release_lost     put back jobs of a lost claim
retain_input     keep an input for some time           reap             requeue jobs of silent workers
keep_checkpoint  hold a training's newest checkpoint
idempotency_*    begin, bind and release a key         claim_message    lease a webhook message to a dispatcher
register_lora    enter an uploaded LoRA                finish_message   end an attempt to deliver it
recount_bytes    correct an owner's byte count         register_file    enter a file of a batch
create_batch     accept a batch of requests            unregister_file  remove it
claim_batch      lease one whose round is due          commit_batch     store what a round has done
release_batch    end a round                           cancel_batch     ask for a batch's end
finish_batch     end a batch
unregister_lora  remove it                             webhook_secrets  read or replace signing secrets
fail_unreadable  end a job that cannot be read         publish_report   write a worker's report
update_field     one field of a key or of a process's entry
register_process enter a process among RQ's workers
requeue_failed   put a failed job back                 change_priority  move a waiting job
purge            cancel waiting jobs                   set_hold         pause a model, drain a worker
release_flagged  give an owner a flagged image
waiting_queues   what waits, for operators             tell_waiting     tell waiting jobs of a preparation
find_jobs        a part of a list of jobs
rate_limit       count a call of an API key            add_totals       add a process' counters to the totals
"""
