"""Which files of a repository a row needs."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from contracts.hub.errors import HubRefused
from contracts.hub.folders import folder_files
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.selection import Select, controlnet_files, descriptions, lora_file, model_files, one_file

SDXL = "StableDiffusionXLPipeline"
INDEX = {
    "_class_name": SDXL,
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "image_encoder": [None, None],
    "force_zeros_for_empty_prompt": True,
}
DESCRIPTIONS = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
]
WEIGHTS = [
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]
CLUTTER = [
    "README.md",
    "whole.safetensors",
    "picture.png",
    "unet/diffusion_pytorch_model.bin",
    "unet/model.onnx",
    "unet/diffusion_flax_model.msgpack",
    "unet/openvino_model.xml",
    "text_encoder/pytorch_model.bin",
    "vae_1_0/config.json",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "unet/older/diffusion_pytorch_model.safetensors",
]


def repository(names: list[str], contents: Mapping[str, object] | None = None) -> RepositoryFiles:
    contents = {"model_index.json": INDEX, **(contents or {})}
    return RepositoryFiles("org/name", frozenset(names), lambda name: json.dumps(contents[name]).encode())


def refusal(select: Select, files: RepositoryFiles) -> str:
    with pytest.raises(HubRefused) as caught:
        select(files)
    return str(caught.value)


def shards(stem: str, index: str) -> tuple[list[str], dict[str, object]]:
    """Names of two shards and of their index, and the index."""
    names = [f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {f"key{number}": name.rpartition("/")[2] for number, name in enumerate(names * 2)}
    return [*names, index], {index: {"weight_map": places}}


def test_a_checkpoint_is_its_descriptions_and_one_set_of_weights_for_each_component() -> None:
    variants = [name.replace(".safetensors", ".fp16.safetensors") for name in WEIGHTS]
    files = repository([*DESCRIPTIONS, *WEIGHTS, *variants, *CLUTTER])
    assert sorted(model_files(SDXL)(files)) == sorted([*DESCRIPTIONS, *WEIGHTS])
    assert sorted(model_files(SDXL, "fp16")(files)) == sorted([*DESCRIPTIONS, *variants])
    without = [*DESCRIPTIONS, *(name for name in WEIGHTS if not name.startswith("unet/"))]
    assert sorted(model_files(SDXL, without=["unet"])(files)) == sorted(without)
    assert sorted(descriptions(SDXL)(files)) == sorted(DESCRIPTIONS)
    assert sorted(descriptions(SDXL, ["vae"])(files)) == sorted([*DESCRIPTIONS, WEIGHTS[2]])


def test_a_checkpoint_of_another_task_of_the_same_model_is_selected_and_that_of_another_model_refused() -> None:
    files = [*DESCRIPTIONS, *WEIGHTS]

    def named(name: str) -> RepositoryFiles:
        return repository(files, {"model_index.json": {**INDEX, "_class_name": name}})

    assert sorted(model_files(SDXL)(named("StableDiffusionXLInpaintPipeline"))) == sorted(files)
    for other in ("StableDiffusionPipeline", "StableDiffusionXLInstructPix2PixPipeline"):
        assert f"is a {other}, and the row's family needs a {SDXL}" in refusal(model_files(SDXL), named(other))


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_tokenizer_has_no_weights_whatever_its_class(name: str) -> None:
    index = {**INDEX, "tokenizer": ["transformers", name]}
    chosen = model_files(SDXL)(repository([*DESCRIPTIONS, *WEIGHTS], {"model_index.json": index}))
    assert sorted(chosen) == sorted([*DESCRIPTIONS, *WEIGHTS])


def test_a_safety_checker_is_not_selected() -> None:
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    files = [*DESCRIPTIONS, *WEIGHTS, "safety_checker/config.json", "safety_checker/model.safetensors"]
    chosen = model_files(SDXL)(repository(files, {"model_index.json": {**INDEX, **checker}}))
    assert sorted(chosen) == sorted([*DESCRIPTIONS, *WEIGHTS])


def test_components_without_the_variant_take_their_plain_weights() -> None:
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    chosen = model_files(SDXL, "fp16")(repository([*DESCRIPTIONS, *WEIGHTS, half]))
    assert sorted(chosen) == sorted([*DESCRIPTIONS, WEIGHTS[0], half, WEIGHTS[2]])
    assert refusal(model_files(SDXL, "bf16"), repository([*DESCRIPTIONS, *WEIGHTS, half])) == (
        "org/name has no weights of the variant bf16: leave `variant` out"
    )


@pytest.mark.parametrize(
    ("variant", "index"),
    [
        (None, "unet/diffusion_pytorch_model.safetensors.index.json"),
        ("fp16", "unet/diffusion_pytorch_model.safetensors.index.fp16.json"),
        ("fp16", "unet/diffusion_pytorch_model.safetensors.fp16.index.json"),
    ],
)
def test_shards_come_by_their_index(variant: str | None, index: str) -> None:
    names, contents = shards(f"unet/diffusion_pytorch_model{f'.{variant}' if variant else ''}", index)
    others = [name for name in WEIGHTS if not name.startswith("unet/")]
    unused, _ = shards(
        "unet/diffusion_pytorch_model.int8", "unet/diffusion_pytorch_model.safetensors.index.int8.json"
    )
    files = repository([*DESCRIPTIONS, *others, *names, *unused], contents)
    assert sorted(model_files(SDXL, variant)(files)) == sorted([*DESCRIPTIONS, *others, *names])
    incomplete = repository([*DESCRIPTIONS, *others, *names[1:]], contents)
    assert refusal(model_files(SDXL, variant), incomplete) == f"org/name lacks {names[0]}, which {index} names"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FluxPipeline"}, f"org/name is a FluxPipeline, and the row's family needs a {SDXL}"),
        (
            {"_class_name": ["pipeline", "Custom"]},
            f"org/name is a pipeline with custom code, which is never run, and the row's family needs a {SDXL}",
        ),
        (
            {"_class_name": None},
            f"org/name is a checkpoint without a class name, and the row's family needs a {SDXL}",
        ),
        ({"unet": ["my_unet", "Unet"]}, "unet of org/name needs custom code, which is never run"),
    ],
)
def test_a_checkpoint_of_another_class_is_refused(change: dict[str, object], message: str) -> None:
    files = repository([*DESCRIPTIONS, *WEIGHTS], {"model_index.json": {**INDEX, **change}})
    assert refusal(model_files(SDXL), files) == message
    assert refusal(descriptions(SDXL), files) == message


def test_what_a_checkpoint_lacks_is_named() -> None:
    assert refusal(model_files(SDXL), repository(["a.safetensors"])) == "org/name has no file model_index.json"
    pickled = repository([*DESCRIPTIONS, *WEIGHTS[:1], *WEIGHTS[2:], "unet/diffusion_pytorch_model.bin"])
    assert refusal(model_files(SDXL), pickled) == (
        "org/name has no .safetensors weights of unet, only pickles, which can execute code: "
        "convert it to .safetensors"
    )
    broken = RepositoryFiles("org/name", frozenset(DESCRIPTIONS), lambda _: b"[")
    assert refusal(model_files(SDXL), broken) == "model_index.json of org/name is not a JSON object"


def test_a_lora_is_the_only_file_or_the_one_that_is_named() -> None:
    assert lora_file()(repository(["README.md", "a.safetensors", "a.bin"])) == ["a.safetensors"]
    several = repository(["a.safetensors", "deep/b.safetensors", "a.fp16.safetensors"])
    assert lora_file("deep/b.safetensors")(several) == ["deep/b.safetensors"]
    assert lora_file(variant="fp16")(several) == ["a.fp16.safetensors"]
    assert refusal(lora_file(), several) == (
        "org/name has several .safetensors files; set `file` to one of "
        "a.fp16.safetensors, a.safetensors, deep/b.safetensors"
    )
    assert refusal(lora_file(), repository(["a.bin"])) == (
        "org/name has no .safetensors file, so it cannot be used as a LoRA"
    )
    assert refusal(one_file("c.safetensors"), repository(["a.safetensors"])) == (
        "org/name has no file c.safetensors; its .safetensors files: a.safetensors"
    )
    assert refusal(one_file("a.bin"), repository(["a.bin"])) == "a.bin of org/name is not a .safetensors file"
    assert refusal(lora_file(), repository([f"{n:02}.safetensors" for n in range(40)])).endswith(" and 28 more")


def test_a_controlnet_is_its_configuration_and_one_set_of_weights() -> None:
    config = {
        "config.json": {"_class_name": "ControlNetModel"},
        "deep/config.json": {"_class_name": "ControlNetModel"},
    }
    plain, half = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
    other = "deep/pro.safetensors"
    files = repository(
        ["config.json", plain, half, "deep/config.json", other, "diffusion_pytorch_model.bin"], config
    )
    assert controlnet_files("ControlNetModel")(files) == ["config.json", plain]
    assert controlnet_files("ControlNetModel", "fp16")(files) == ["config.json", half]
    assert controlnet_files("ControlNetModel", file=other)(files) == ["deep/config.json", other]
    assert refusal(controlnet_files("FluxControlNetModel"), files) == (
        "org/name is a ControlNetModel, and the row's family needs a FluxControlNetModel"
    )
    assert refusal(controlnet_files("ControlNetModel"), repository(["config.json", half], config)) == (
        f"org/name has no .safetensors weights without a variant; set `variant` or `file`; its weights: {half}"
    )
    assert refusal(controlnet_files("ControlNetModel"), repository(["deep/config.json", other], config)) == (
        f"org/name has no config.json at its top; set `file` to one of {other}"
    )
    alone = "control-LoRAs-rank256/canny.safetensors"
    assert controlnet_files("ControlNetModel", file=alone)(repository([alone, "config.json"], config)) == [alone]
    union = repository(["config.json", plain], {"config.json": {"_class_name": "ControlNetModel_Union"}})
    assert controlnet_files("ControlNetUnionModel")(union) == ["config.json", plain]
    assert refusal(controlnet_files("ControlNetModel"), union) == (
        "org/name is a ControlNetUnionModel, and the row's family needs a ControlNetModel: it is a union, whose "
        "kinds of control must be named in `modes` of the row"
    )
    assert refusal(controlnet_files("ControlNetUnionModel"), files).endswith("remove `modes` from the row")


def test_of_a_folder_of_the_cache_only_what_one_row_loads_counts() -> None:
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    files = repository([*DESCRIPTIONS, *WEIGHTS, half, *CLUTTER])
    assert sorted(folder_files(files)) == sorted([*DESCRIPTIONS, *WEIGHTS])
    assert sorted(folder_files(files, "fp16")) == sorted([*DESCRIPTIONS, WEIGHTS[0], half, WEIGHTS[2]])
    net = repository(
        ["config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"]
    )
    assert folder_files(net) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert folder_files(repository(["a.safetensors", "README.md"])) == ["a.safetensors"]
