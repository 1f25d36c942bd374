"""Models that are ready to run on one device: loaded, placed by a plan, evicted for others.

pool.py           the models of one worker; what the loop and the generation ask
plan_selector.py  the memory plan of each call, and a smaller one after memory ran out
placer.py         has models loaded and placed, at once or while others are served
call_history.py   the last calls, from which the next ones are expected
prompts_ahead.py  encodes prompts of waiting jobs where T5 is on the CPU
eviction.py       which models stay in memory and which is evicted, to host memory or altogether
context.py        what all models share
model.py          one loaded model: components, pipelines, adapters, compiled blocks
graph_limits.py   why a denoiser is not replayed as CUDA graphs, or not whole
prompt_encoders.py its text encoders: for jobs, and for prompts of waiting jobs
pipelines.py      pipelines of other tasks on the same components
loading/          from files to a model in the cache
"""
