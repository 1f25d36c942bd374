"""Trains, exports and judges the shapes models: `python -m models.training STAGE`.

data/          scenes, captions and drawings
networks/      the networks and tokenizers, and how they become a diffusers folder
recipes/       what is particular to a family's training
stages/        one command each: autoencoder, text encoders, denoiser, guidance, ControlNets, adapters
trainees/      what learns in the worker's loop, beside what the worker itself trains
judging/       what is right in the generated images
lessons.py     adapters and ControlNets by the worker's own training
loop.py        the training loop, its checkpoints and its ranks
muon.py        Muon in float32
optimizers.py  which optimizer moves which weights
"""
