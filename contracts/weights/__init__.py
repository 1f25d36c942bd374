"""Weight files by their headers, without torch.

configs.py              configurations of components
checkpoint_files.py     a checkpoint in one file of either kind
quantized.py            how a component is quantized, and what that makes of its size
quantized_files.py      weights that were quantized before they were saved
networks.py             what kind of upscaler or eraser a file holds, and what memory it takes
preprocessor_models.py  the same of the folder of a preprocessor
row_files.py            whether the files of a row are what the row says
denoiser_files.py       the models whose denoiser a file suits
adapters/               LoRAs, textual inversions, IP-Adapters
vae_files.py            VAEs of the catalogue, and the models that they suit
text_encoder_files.py   text encoders in files of their own, and whether a model can use them
class_checkpoints.py    classes and size of a checkpoint that is prompted by a class
checkpoint_limits.py    tasks and schedulers of one checkpoint
formats/                what the headers of safetensors and GGUF files say, and values that no weight may have
controls/               ControlNets and T2I-Adapters in one file, and the models that they suit
counts/                 numbers of values and operations of components, of published checkpoints too
"""
