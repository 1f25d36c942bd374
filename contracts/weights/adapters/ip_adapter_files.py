"""IP-Adapter files by their headers: kind, widths, and how many tokens an image becomes. Loads no weights.

The layouts are those of the original releases (github.com/tencent-ailab/IP-Adapter, and FLUX.1 Redux of
github.com/black-forest-labs/flux). Refuses what no worker could use, with the reason; `image_prompts.py` and
`redux.py` in `worker/adapters/references/` compare the file with the loaded model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts.errors import AdapterRefused
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header

#: What an image encoder gives of an image: CLIP's one projected vector, or the states of its last layer but one;
#: SigLIP's vector of each patch.
Reads = Literal["embedding", "states", "patches"]

_PROJECTION, _LAYERS = "image_proj.", "ip_adapter."
#: Both projections of a cross-attention layer; numbered by twos, since self-attention layers are counted too.
_LAYER = re.compile(r"^ip_adapter\.(\d+)\.to_(k|v)_ip\.weight$")
#: Tokens of one image where the file has no table of them.
_PLAIN_TOKENS, _FULL_TOKENS = 4, 257
_MAX_TOKENS = 1024
#: All tensors of Redux: two linear layers, the inner width three times the outer one.
_REDUX = frozenset(f"redux_{layer}.{tensor}" for layer in ("up", "down") for tensor in ("weight", "bias"))


class IpAdapterFacts(BaseModel):
    """Facts from the header of an IP-Adapter file.

    Attributes:
        kind: `plain`, `plus` (a resampler of the encoder's states) or `full` (all states); `redux`, whose tokens
            follow those of the prompt.
        tokens: that the denoiser's layers read of one image; None: as many as its encoder sees patches.
        image_width: of what the image encoder gives.
        width: of the tokens, which is that of the model's prompt embeddings.
        layers: cross-attention layers; 0 of one without layers of its own.
        key_values: outputs of all layers' projections, for one token.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["plain", "plus", "full", "redux"]
    tokens: int | None
    image_width: int
    width: int
    layers: int
    key_values: int

    @property
    def reads(self) -> Reads:
        """What it needs of the image encoder."""
        if self.kind == "redux":
            return "patches"
        return "embedding" if self.kind == "plain" else "states"

    @property
    def device_values(self) -> int:
        """Keys and values of one reference image, and of none, in all layers: what a job keeps on the device."""
        return 2 * (self.tokens or 0) * self.key_values


def read_ip_adapter(file: Path) -> IpAdapterFacts:
    """Read the header of an IP-Adapter file.

    Raises:
        AdapterRefused: it is not a safetensors file, not an IP-Adapter, or of a kind that nothing here can run.
    """
    try:
        tensors = read_header(file).tensors
    except NotSafetensors as error:
        raise AdapterRefused(f"the file {error}") from None
    if not _REDUX.isdisjoint(tensors):
        return _redux(tensors)
    projection = {
        name.removeprefix(_PROJECTION): tensor for name, tensor in tensors.items() if name.startswith(_PROJECTION)
    }
    if not projection or not any(name.startswith(_LAYERS) for name in tensors):
        raise AdapterRefused(
            "the file is not an IP-Adapter: it has no tensors `image_proj.…` and `ip_adapter.…`, nor `redux_up.…`"
        )
    _refuse_other_kinds(tensors, projection)
    layers = _layers(tensors)
    kind, tokens, image_width, width = _projection(projection)
    inputs = {tensor.shape[1] for tensor in layers.values()}
    if inputs != {width}:
        raise AdapterRefused(
            f"its layers read tokens of {', '.join(map(str, sorted(inputs)))} values, and its image_proj makes "
            f"tokens of {width}"
        )
    return IpAdapterFacts(
        kind=kind,
        tokens=tokens,
        image_width=image_width,
        width=width,
        layers=len(layers) // 2,
        key_values=sum(tensor.shape[0] for tensor in layers.values()),
    )


def _redux(tensors: Mapping[str, Tensor]) -> IpAdapterFacts:
    if differing := sorted(_REDUX ^ tensors.keys()):
        has = "lacks" if differing[0] in _REDUX else "has, beside Redux's tensors,"
        raise AdapterRefused(f"it {has} {differing[0][:120]}")
    up = tensors["redux_up.weight"].shape
    inner, read = up if len(up) == 2 else (0, 0)
    width = inner // 3
    expected = {
        "redux_up.weight": (3 * width, read), "redux_up.bias": (3 * width,),
        "redux_down.weight": (width, 3 * width), "redux_down.bias": (width,),
    }  # fmt: skip
    for name, shape in expected.items():
        if tensors[name].shape != shape or not all(shape):
            raise AdapterRefused(
                f"{name} has the shape {list(tensors[name].shape)}; Redux makes tokens of a third of the "
                f"{inner} values of redux_up.weight"
            )
    return IpAdapterFacts(kind="redux", tokens=None, image_width=read, width=width, layers=0, key_values=0)


def _refuse_other_kinds(tensors: Mapping[str, Tensor], projection: Mapping[str, Tensor]) -> None:
    faces = [name for name in tensors if "lora" in name or "perceiver_resampler" in name]
    if faces or ("norm.weight" in projection and "proj.0.weight" in projection):
        raise AdapterRefused(
            f"it is a FaceID adapter ({(faces or ['image_proj.proj.0.weight'])[0][:80]}), which needs the face "
            "recognition of the insightface library: not supported; use an IP-Adapter for faces without FaceID"
        )
    other = next((name for name in tensors if not name.startswith(_PROJECTION) and not _LAYER.match(name)), None)
    if other is not None:
        raise AdapterRefused(
            f"{other[:120]} is not a tensor of an IP-Adapter for models with a UNet; "
            "for FLUX only Redux is supported, for SD3 none"
        )


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layers = {name: tensor for name, tensor in tensors.items() if name.startswith(_LAYERS)}
    halves: dict[int, set[str]] = {}
    for name, tensor in layers.items():
        match = _LAYER.match(name)
        if match is None or len(tensor.shape) != 2:
            raise AdapterRefused(f"{name[:120]} must be a matrix, got the shape {list(tensor.shape)}")
        halves.setdefault(int(match[1]), set()).add(match[2])
    for number, found in halves.items():
        if found != {"k", "v"}:
            raise AdapterRefused(f"one of the two projections of ip_adapter.{number} is missing")
    if sorted(halves) != [2 * index + 1 for index in range(len(halves))]:
        raise AdapterRefused(
            f"its layers must be numbered 1, 3, 5, …; it has {', '.join(map(str, sorted(halves)[:5]))}, …"
        )
    return layers


def _projection(own: Mapping[str, Tensor]) -> tuple[Literal["plain", "plus", "full"], int, int, int]:
    """Kind, tokens, width of what is read, width of the tokens."""
    try:
        if "latents" in own:
            (_, tokens, _), image_width = own["latents"].shape, own["proj_in.weight"].shape[1]
            if not 0 < tokens <= _MAX_TOKENS:
                raise AdapterRefused(
                    f"image_proj.latents makes {tokens} tokens of an image; at most {_MAX_TOKENS} are allowed"
                )
            return "plus", tokens, image_width, own["proj_out.weight"].shape[0]
        if "proj.weight" in own:
            outputs, image_width = own["proj.weight"].shape
            width = own["norm.weight"].shape[0]
            if outputs != _PLAIN_TOKENS * width:
                raise AdapterRefused(
                    f"image_proj.proj.weight has {outputs} outputs; {_PLAIN_TOKENS} tokens of {width} are needed"
                )
            return "plain", _PLAIN_TOKENS, image_width, width
        if "proj.3.weight" in own:
            return "full", _FULL_TOKENS, own["proj.0.weight"].shape[1], own["proj.3.weight"].shape[0]
    except (KeyError, ValueError, IndexError):
        raise AdapterRefused("its image_proj lacks a tensor, or has one of another shape") from None
    raise AdapterRefused("its image_proj is of an unknown kind; known are IP-Adapter, Plus and Full")
