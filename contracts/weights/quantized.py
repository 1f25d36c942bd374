"""How a component's weights are quantized, by its configuration, and what that makes of its size.

diffusers makes objects from a configuration, so here only what torchao (0.18) and bitsandbytes (0.50) write for
the quantizations that a row can name is taken. Needs no package and reads no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.catalogue.quantizations import QUANTIZATIONS, kinds_of
from contracts.errors import CatalogueError
from contracts.weights.configs import read_config
from contracts.weights.counts.parameter_counts import PackedBytes, ParameterCount, Sums

#: Components that can be quantized, beside text encoders.
DENOISERS = ("transformer", "unet")
_TEXT_ENCODER = "text_encoder"
#: Entries of a configuration that say which of torchao's methods it is; others must say nothing.
_ENTRIES = frozenset({"quant_method", "quant_type", "modules_to_not_convert"})
_PER_ROW = {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}}
#: Kind -> what its configuration says.
_CONFIGS: Mapping[str, Mapping[str, object]] = {
    "int8_weight_only": {"granularity": _PER_ROW, "group_size": None},
    "float8_weight_only": {
        "granularity": _PER_ROW,
        "weight_dtype": {"_type": "torch.dtype", "_data": "float8_e4m3fn"},
    },
}


def quantized(count: ParameterCount, kind: str) -> ParameterCount:
    """Count a component whose linear layers are quantized, by its count before that."""
    row, linear = QUANTIZATIONS[kind], count.linear
    both = zip(linear.values, linear.rows, strict=True)
    sizes = Sums(*(row.stored_bytes(values, rows) for values, rows in both))
    packed = PackedBytes(
        *sizes,
        layer_values=linear.values.leaf,
        unpacking_bytes=linear.values.leaf * row.unpacking_bytes,
        copies_output=bool(linear.values.leaf),
    )
    return ParameterCount(*linear.others, packed=packed)


def read_quantization(config: Mapping[str, Any], component: str) -> str | None:
    """How a component's weights are quantized, by its configuration; None where they are not.

    Args:
        component: its name in the checkpoint.

    Raises:
        CatalogueError: in a way that cannot be used.
    """
    settings = config.get("quantization_config")
    if not settings:
        return None
    is_able = component in DENOISERS or component.startswith(_TEXT_ENCODER)
    kind = _kind_of(settings, component) if isinstance(settings, dict) and is_able else None
    if kind is not None:
        return kind
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    way = f" by {str(method)[:40]}" if method else ""
    raise CatalogueError(
        f"its {component} is quantized{way} (quantization_config in its config.json), which is not supported: of "
        f"denoisers and text encoders, torchao's {' and '.join(kinds_of('torchao'))} are, of denoisers also "
        f"{' and '.join(kinds_of('bitsandbytes'))}; use the checkpoint that is not, perhaps with `quantization` "
        "or `text_encoder_quantization` in the row, or a .gguf file of its transformer where the family takes one"
    )


def _kind_of(settings: Mapping[str, Any], component: str) -> str | None:
    if settings.get("quant_method") == "bitsandbytes":
        return _bitsandbytes_kind(settings) if component in DENOISERS else None
    skipped, quant_type = settings.get("modules_to_not_convert"), settings.get("quant_type")
    config = quant_type.get("default") if isinstance(quant_type, dict) and len(quant_type) == 1 else None
    if settings.get("quant_method") != "torchao" or not isinstance(config, dict):
        return None
    if not (skipped is None or (isinstance(skipped, list) and all(isinstance(name, str) for name in skipped))):
        return None
    if any(value for name, value in settings.items() if name not in _ENTRIES):
        return None
    found = config.get("_data")
    said = {key: value for key, value in found.items() if key != "set_inductor_config"} if found else None
    matching = (kind for kind, row in QUANTIZATIONS.items() if row.config == config.get("_type"))
    return next((kind for kind in matching if said == _CONFIGS[kind]), None)


#: What bitsandbytes' configuration may say, beside which of the two it is.
_DTYPES = ("float32", "bfloat16", "float16")
_BITSANDBYTES: Mapping[str, tuple[object, ...]] = {
    "quant_method": ("bitsandbytes",),
    "bnb_4bit_compute_dtype": _DTYPES,
    "bnb_4bit_quant_storage": ("uint8",),
    "bnb_4bit_quant_type": ("nf4", "fp4"),
    "bnb_4bit_use_double_quant": (False, True),
    "llm_int8_enable_fp32_cpu_offload": (False, True),
    "llm_int8_has_fp16_weight": (False,),
}


def _bitsandbytes_kind(settings: Mapping[str, Any]) -> str | None:
    said = {name.removeprefix("_"): value for name, value in settings.items()}
    skipped, threshold = said.pop("llm_int8_skip_modules", None), said.pop("llm_int8_threshold", 6.0)
    if not (skipped is None or (isinstance(skipped, list) and all(isinstance(name, str) for name in skipped))):
        return None
    if not isinstance(threshold, int | float):
        return None
    chosen = {row.config: said.pop(row.config, False) for row in map(QUANTIZATIONS.get, _OF_BITSANDBYTES) if row}
    if any(value not in _BITSANDBYTES.get(name, ()) for name, value in said.items()):
        return None
    kind = next((one for one in _OF_BITSANDBYTES if chosen[QUANTIZATIONS[one].config] is True), None)
    is_other = kind == "bitsandbytes_nf4" and said.get("bnb_4bit_quant_type") != "nf4"
    return None if is_other or list(chosen.values()).count(True) != 1 else kind


_OF_BITSANDBYTES = kinds_of("bitsandbytes")


def read_folder_quantization(folder: Path) -> str | None:
    """How the denoiser in a checkpoint's folder is quantized; None where it is not.

    Raises:
        CatalogueError: as `read_quantization`, or its configuration cannot be read.
    """
    for name in DENOISERS:
        config = read_config(folder / name)
        if config:
            return read_quantization(config, name)
    return None


def read_encoder_quantizations(folder: Path) -> dict[str, str]:
    """Text encoder -> how it is quantized, of those in a checkpoint's folder that are.

    Raises:
        CatalogueError: as `read_folder_quantization`.
    """
    found = {}
    for part in sorted(folder.glob(f"{_TEXT_ENCODER}*")):
        kind = read_quantization(read_config(part), part.name)
        if kind is not None:
            found[part.name] = kind
    return found


def check_stored(component: str, quantization: str | None, stored: str | None) -> None:
    """Refuse to quantize a component in another way than it is stored; raises CatalogueError.

    Args:
        quantization: as the model's row names it.
        stored: how it is quantized already.
    """
    if stored is not None and quantization not in (None, stored):
        raise CatalogueError(
            f"its {component} is quantized already, as {stored}: leave {quantization} out of the model's row"
        )
