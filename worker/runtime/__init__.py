"""What a worker's models run on: the device, its memory and its kernels.

host_environment.py   what libraries read from the environment when they are loaded
device.py             which device, its usable memory, the dtype of a model on it
out_of_memory.py      which errors mean that memory ran out, and which that the device failed
energy.py             what the device has drawn, shared among jobs
call_timer.py         how long calls take on the device, and how many may be queued there
memory_tracker.py     peaks of device memory, and the budget that they must keep to
kernel_options.py     the operator's options, without torch
kernels.py            attention kernel, memory format and compiled blocks of a model
cuda_graphs.py        a whole denoiser as CUDA graphs, and the memory that graphs keep
slices.py             long work of the jobs' thread, cut into slices
async_copies.py       copies to the device for which the host does not wait
diffusers_caching.py  caches what diffusers asks of a model in every call
warnings.py           filters for known messages of the libraries
"""
