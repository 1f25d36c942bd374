"""Loads one file in the layout of an original release, and accounts for each of its tensors.

What the file lacks comes from `config`, a folder in diffusers layout. Knows no catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import GGUFQuantizationConfig, pipelines
from diffusers.loaders.single_file import load_single_file_sub_model
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors.torch import load_file
from transformers import PreTrainedModel

from contracts.errors import CatalogueError
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.selection import component_weights
from contracts.weights.checkpoint_limits import read_scheduler_config, settings_of_keys
from worker.checkpoints.components import NOT_QUANTIZED, is_model, load_component, read_index
from worker.checkpoints.one_file.noise_tables import check_noise_tables
from worker.checkpoints.one_file.single_file import SingleFile
from worker.checkpoints.quantized import gguf_files
from worker.checkpoints.quantized.scaled import unscaled
from worker.checkpoints.quantized.torchao_weights import quantize, refuse_quantized
from worker.checkpoints.tracking import mark, some_of, used_names
from worker.families import DiffusersFamily
from worker.runtime import slices

#: Tensors that no model here needs: what is computed anyway, what only training used, what says how to load,
#: the projection of CLIP-L, whose unprojected vector these families take, what follows the layer of OpenCLIP that
#: Stable Diffusion 2 takes, a norm that Z-Image and Lumina-Image never use, and of Sana what it computes and the
#: embedding of an empty prompt, which only training used.
_HARMLESS = re.compile(
    r"""(.*\.)?(position_ids|logit_scale|spiece_model)$
    | model_ema\.
    | (first_stage_model|vae)\.(loss|model_ema)\.
    | (betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_\w+|posterior_\w+|lvlb_weights|logvar|global_step)$
    | denoiser\.(log_)?sigmas$
    | (v_pred|ztsnr)$
    | (model\.diffusion_model\.)?(norm_final\.weight|pos_embed|y_embedder\.y_embedding)$
    | cond_stage_model\.model\.(text_projection$|transformer\.resblocks\.23\.)
    | (conditioner\.embedders\.0|text_encoders\.clip_l)\.transformer\.text_projection(\.weight)?$
    """,
    re.VERBOSE,
)
#: An embedding that is stored twice.
_TWICE = {
    "text_encoders.t5xxl.transformer.encoder.embed_tokens.weight": "text_encoders.t5xxl.transformer.shared.weight"
}
_UNET = "model.diffusion_model."
_UNET_PART = re.compile(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\.")
_EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


def load_file_components(
    file: SingleFile,
    family: DiffusersFamily,
    config: Path,
    dtype: torch.dtype,
    variant: str | None,
    skipped: Collection[str] = (),
    quantizations: Mapping[str, str | None] = NOT_QUANTIZED,
) -> dict[str, Any]:
    """Load the models of a single file, and those that it lacks from `config`, but for those to be skipped.

    Args:
        quantizations: component -> how to quantize it, as the row names it; not the transformer of a GGUF file.

    Raises:
        CatalogueError: the file is of another layout, lacks weights, or holds some that nothing takes.
        Exception: whatever the libraries raise for damaged files.
    """
    if file.is_gguf:
        stored = gguf_files.read_packed(file.path)
    else:
        stored = unscaled(_with_prefix(load_file(file.path), family), dtype)
    check_noise_tables(stored, {**read_scheduler_config(config), **settings_of_keys(stored.keys())})
    marked, index, found = mark(stored), read_index(family, config), {}
    refuse_quantized(config)
    packing = gguf_files.quantizer(stored.values(), dtype)
    with used_names() as used:
        for name in [name for name in index if is_model(index[name])]:
            if name in skipped and not file.holds(name, family):
                continue
            try:
                if file.holds(name, family):
                    own = packing if name == family.denoiser else None
                    found[name] = _load(name, index[name], marked, config, dtype, own)
                else:
                    kind = quantizations.get(name)
                    found[name] = _load_from_config(name, index[name], config, dtype, variant, kind)
                gguf_files.check_packed_layers(name, found[name])
                slices.end()
            except NotImplementedError as error:  # a weight that stayed on the meta device cannot be moved
                gaps = _gaps(name, index[name], marked, config)
                raise (_missing(file, name, gaps) if gaps else error) from error
            except (KeyError, IndexError, RuntimeError, ValueError) as error:
                raise CatalogueError(
                    f"its {name} is not in the layout of an original {family.id} release, as diffusers reads it: "
                    f"{type(error).__name__} at {str(error).splitlines()[0][:120]}"
                ) from error
    _check_gaps(file, found)
    _check_leftovers(stored, used, index["scheduler"])
    for name in found:
        if file.holds(name, family):
            quantize(found[name], quantizations.get(name))
    return found


def _with_prefix(tensors: dict[str, torch.Tensor], family: DiffusersFamily) -> dict[str, torch.Tensor]:
    """Return a bare UNet under the names that it has in a whole checkpoint, the only ones that diffusers reads."""
    if family.denoiser != "unet" or "input_blocks.0.0.weight" not in tensors:
        return tensors
    return {f"{_UNET}{name}" if _UNET_PART.match(name) else name: tensor for name, tensor in tensors.items()}


def with_settings_of_file(scheduler: Any, file: SingleFile) -> Any:
    """Return the scheduler of `config`, changed to what the file itself says of its training."""
    settings = settings_of_keys(file.keys)
    return type(scheduler).from_config({**scheduler.config, **settings}) if settings else scheduler


def _load_from_config(
    name: str, class_name: str, config: Path, dtype: torch.dtype, variant: str | None, quantization: str | None
) -> Any:
    """One model that the file lacks."""
    has_variant = variant and component_weights(RepositoryFiles.in_folder(config), name, variant)
    try:
        return load_component(config, name, class_name, dtype, variant if has_variant else None, quantization)
    except OSError:
        message = f"the file has no {name}, and `config` has no weights of it: name a whole checkpoint there"
        raise CatalogueError(message) from None


def _load(
    name: str,
    class_name: str,
    tensors: dict[str, torch.Tensor],
    config: Path,
    dtype: torch.dtype,
    packing: GGUFQuantizationConfig | None,
) -> Any:
    """One model of the file."""
    library = "diffusers" if hasattr(diffusers, class_name) else "transformers"
    return load_single_file_sub_model(
        library_name=library,
        class_name=class_name,
        name=name,
        checkpoint=dict(tensors),  # converters take tensors out
        pipelines=pipelines,
        is_pipeline_module=False,
        cached_model_config_path=str(config),
        torch_dtype=dtype,
        local_files_only=True,
        **({} if packing is None else {"quantization_config": packing}),
    )


def _gaps(name: str, class_name: str, tensors: dict[str, torch.Tensor], config: Path) -> list[str]:
    """The weights of one of diffusers' models that its converter does not find in the file."""
    model_class = getattr(diffusers, class_name)
    settings = model_class.load_config(config / name)
    with torch.device("meta"):
        needed = model_class.from_config(settings).state_dict()
    convert = SINGLE_FILE_LOADABLE_CLASSES[class_name]["checkpoint_mapping_fn"]
    converted = convert(config=settings, checkpoint=dict(tensors))
    return sorted(needed.keys() - converted.keys())


def _missing(file: SingleFile, name: str, gaps: Sequence[str]) -> CatalogueError:
    others = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    return CatalogueError(f"{file.path.name} lacks weights of its {name}: {gaps[0]}{others}")


def _check_gaps(file: SingleFile, components: dict[str, Any]) -> None:
    """Refuse weights that the file lacks.

    diffusers' single-file loader (0.42) leaves them on the meta device, of transformers' models without an error;
    `test_a_single_file_with_a_gap_is_refused` fails when that changes.
    """
    for name, part in components.items():
        if isinstance(part, PreTrainedModel):
            part.tie_weights()  # T5's token embedding may be stored once and used twice
        gaps = [key for key, tensor in part.named_parameters() if tensor.is_meta]
        if gaps:
            raise _missing(file, name, gaps)


def _check_leftovers(tensors: dict[str, torch.Tensor], used: set[str], scheduler: str) -> None:
    """Refuse tensors that no model took and that are not known to be harmless."""
    left = [name for name in sorted(tensors) if name not in used and not _is_harmless(name, tensors, scheduler)]
    if left:
        raise CatalogueError(
            f"no layer takes {some_of(left)} of the file: the checkpoint, or the way it is stored, is of a kind "
            "that is not supported"
        )


def _is_harmless(name: str, tensors: dict[str, torch.Tensor], scheduler: str) -> bool:
    tensor = tensors[name]
    if _HARMLESS.match(name):
        return True
    if name in _EDM:
        return scheduler.startswith("EDM")
    return name in _TWICE and _TWICE[name] in tensors and torch.equal(tensor, tensors[_TWICE[name]])
