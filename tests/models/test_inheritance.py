"""Where the UNet of Stable Diffusion 1 begins: it answers as SDXL's, as far as it can be told as much."""

import torch

from models.training.networks.architectures import CLIP_WIDTH, build_sd15_unet, build_unet
from models.training.recipes import Conditions
from models.training.recipes.sdxl import usual_sizes
from models.training.stages.inheritance import inherit


@torch.no_grad()
def test_it_answers_as_sdxls_where_one_encoders_states_say_what_both_said() -> None:
    torch.manual_seed(0)
    source, unet = build_unet().eval(), build_sd15_unet().eval()
    words = torch.randn(4, 77, CLIP_WIDTH)
    both = words @ torch.randn(CLIP_WIDTH, 2 * CLIP_WIDTH)
    pooled = torch.randn(1, CLIP_WIDTH).expand(4, -1)

    inherit(unet, source, before=Conditions(both, pooled), after=Conditions(words, words.new_zeros(4, 0)))

    noisy, step = torch.randn(4, 4, 8, 8), torch.tensor([0, 300, 600, 999])
    added = {"text_embeds": pooled, "time_ids": usual_sizes(4)}
    wanted = source(noisy, step, both, added_cond_kwargs=added).sample
    assert torch.allclose(unet(noisy, step, words).sample, wanted, atol=1e-3)
