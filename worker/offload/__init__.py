"""Where the weights of a loaded model are: on the device, in host memory, or moving between them while it runs.

placement.py         all components of one model, moved as a plan has them; VAE tiling
offloaded_module.py  one component's weights, moved between device, host memory and CPU
on_demand.py         T5, other encoders, denoiser and VAE on the device for their own stage only
stored_tensors.py    the plain tensors that weights are stored in, quantized or not
streaming.py         weights on the device group by group, while the component runs
host_buffer.py       page-locked host memory of exactly a component's size
copy_queue.py        copies beside what a CUDA device computes, in order without waiting
upload.py            weights that were just read, to the device through two page-locked buffers
"""
