"""Writes a textual inversion whose meaning is exact: the vectors of two words under one. Trains nothing.

A prompt with the word gives, bit for bit, the image of a prompt with the two words in its place.
"""

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from contracts.weights.adapters.inversion_files import CLIP_G, CLIP_L
from models.training.networks.export import MODELS, checkpoint_folder
from worker.training.files import to_safetensors

FOLDER = MODELS / "textual_inversions"
WORD, COLOUR, SHAPE = "ruby", "red", "star"
MEANING = f"{COLOUR} {SHAPE}"


def write() -> None:
    """Write it for the SDXL checkpoint."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint_folder("sdxl"), dtype=torch.float16)
    parts = {
        CLIP_L: (pipeline.tokenizer, pipeline.text_encoder),
        CLIP_G: (pipeline.tokenizer_2, pipeline.text_encoder_2),
    }
    vectors = {
        part: encoder.get_input_embeddings().weight[tokenizer(MEANING, add_special_tokens=False).input_ids]
        for part, (tokenizer, encoder) in parts.items()
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path().write_bytes(to_safetensors(vectors, {"format": "pt", "base_model": "shapes-sdxl", "meaning": MEANING}))


def path() -> Path:
    """Where it lies."""
    return FOLDER / f"shapes-sdxl-{WORD}.safetensors"
