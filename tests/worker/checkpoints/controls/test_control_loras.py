"""Control-LoRAs become the ControlNets that they are differences of, or are refused by the tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import Mode
from contracts.errors import CatalogueError
from contracts.memory.sizes.extras import size_controlnet
from contracts.storage import Storage
from contracts.weights.controls.controlnet_files import read_controlnet
from contracts.weights.controls.controlnet_models import count_values, find_models
from contracts.weights.row_files import check_row_files
from tests.support.bare_diffusers import make_pipeline
from tests.support.control_loras import Tensors, write_control_lora
from tests.support.jobs import INPUT_IMAGES, complete_job, decode_pixels, generate_pixels, make_job
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.families import get_family
from worker.pool.pool import Pool


@pytest.fixture(scope="module")
def catalogue(trained: Catalogue) -> Catalogue:
    """The shipped SDXL: the tensors of its ControlNet are told apart by their values, none of which are zero."""
    return trained


@pytest.fixture(scope="module")
def made(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors]:
    """The file, and the tensors of the ControlNet that it becomes."""
    file = tmp_path_factory.mktemp("control-lora") / "canny.safetensors"
    return file, write_control_lora(catalogue.root, file)


def _row(file: Path, **fields: str) -> ControlNetSpec:
    return ControlNetSpec(**{"id": "sdxl-hint", "family": "sdxl", "source": str(file), **fields})


def test_images_are_those_of_the_controlnet_made_by_hand_and_the_model_stays_as_it_was(
    made: tuple[Path, Tensors], catalogue: Catalogue, storage: Storage
) -> None:
    file, tensors = made
    own = catalogue.model_copy(update={"controlnets": (_row(file),)})
    pool = Pool(own, device="cpu")
    plain = make_job(own, "sdxl", num_inference_steps=2, scheduler="euler", guidance_scale=3.0)
    before = generate_pixels(plain, pool, storage)
    job = make_job(own, "sdxl", Mode.CONTROLNET, num_inference_steps=2, scheduler="euler", guidance_scale=3.0)

    files, receipt = complete_job(job, pool, storage)

    config = diffusers.ControlNetModel.load_config(catalogue.root / "controlnets" / "shapes-sdxl-canny")
    net = diffusers.ControlNetModel.from_config(config)
    net.load_state_dict(tensors)
    pipeline = make_pipeline(
        catalogue.root / "shapes-sdxl", "StableDiffusionXLControlNetPipeline", controlnet=net.eval()
    )
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline(
        "a red circle", image=INPUT_IMAGES["inputs/control.png"], num_inference_steps=2, guidance_scale=3.0,
        width=64, height=64, generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs).astype(np.int16))
    assert np.array_equal(generate_pixels(plain, pool, storage), before)
    assert [used.id for used in receipt.controlnets] == ["sdxl-hint"]
    # The plan counts the ControlNet, and not the file, which is smaller.
    component = size_controlnet(own, "sdxl-hint", 4)
    assert component is not None
    assert component.bytes == 4 * sum(tensor.numel() for tensor in tensors.values())


def test_an_upload_is_compared_with_the_models_and_counts_as_the_controlnet_that_it_becomes(
    made: tuple[Path, Tensors], catalogue: Catalogue
) -> None:
    file, becomes = made
    tensors = read_controlnet(file)
    family, models = find_models(tensors, catalogue)
    assert family == "sdxl"
    assert "shapes-sdxl" in models
    assert count_values(tensors, family, models, catalogue) == sum(tensor.numel() for tensor in becomes.values())
    # Where no model can be read, it counts as the published ControlNet.
    assert count_values(tensors, family, [], catalogue) == 1_251_014_160


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: t.pop("input_blocks.1.0.in_layers.2.up"),
            r"one half of input_blocks\.1\.0\.in_layers\.2, and lacks the other: up",
        ),
        (lambda t: t.pop("zero_convs.0.0.bias"), r"lacks the bias of zero_convs\.0\.0"),
        (lambda t: t.update({"new.weight": torch.zeros(1)}), r"takes its new\.weight"),
        (
            lambda t: t.update({"input_blocks.1.0.in_layers.2.down": torch.zeros(4, 320, 3, 3)}),
            r"the halves of its input_blocks\.1\.0\.in_layers\.2 are .* made for another model",
        ),
        (
            lambda t: t.update({"input_blocks.1.0.in_layers.2.weight": torch.zeros(64, 64, 3, 3)}),
            r"it has both input_blocks\.1\.0\.in_layers\.2\.weight and its halves",
        ),
        (lambda t: t.update({"middle_block.0.in_layers.0.weight": torch.zeros(7)}), "made for another model"),
        (lambda t: t.update({"zero_convs.00.0.bias": torch.zeros(64)}), "names one layer twice"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_the_tensor_at_the_start_and_by_the_worker(
    change: Callable[[Tensors], object],
    reason: str,
    made: tuple[Path, Tensors],
    catalogue: Catalogue,
    tmp_path: Path,
) -> None:
    tensors = load_file(made[0])
    change(tensors)
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(CatalogueError, match=reason):
        check_row_files(catalogue, _row(tmp_path / "one.safetensors"))
    unet = diffusers.UNet2DConditionModel.load_config(catalogue.root / "shapes-sdxl" / "unet")
    with torch.device("meta"):
        denoiser = diffusers.UNet2DConditionModel.from_config(unet)
    with pytest.raises(CatalogueError, match=reason):
        load_controlnet(get_family("sdxl"), tmp_path / "one.safetensors", torch.float32, denoiser)


def test_the_controlnet_has_memory_of_its_own_and_weights_in_fewer_bits_are_refused(
    made: tuple[Path, Tensors], catalogue: Catalogue
) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(catalogue.root / "shapes-sdxl" / "unet")
    net = load_controlnet(get_family("sdxl"), made[0], torch.float32, unet)
    places = ({tensor.data_ptr() for tensor in module.state_dict().values()} for module in (unet, net))
    assert set.isdisjoint(*places)
    unet.conv_in.to(torch.float8_e4m3fn)
    with pytest.raises(CatalogueError, match=r"conv_in\.\w+ is in fewer bits here"):
        load_controlnet(get_family("sdxl"), made[0], torch.float32, unet)


def test_other_families_refuse_it_by_name(made: tuple[Path, Tensors], catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="it works with Stable Diffusion 1 and SDXL"):
        check_row_files(catalogue, _row(made[0], family="flux"))
