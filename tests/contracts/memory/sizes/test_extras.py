"""ControlNets and LoRAs as components: from files, and of what is still on a hub."""

from __future__ import annotations

import pytest

from contracts.catalogue.catalogue import ControlNetSpec
from contracts.catalogue.reader import read_catalogue
from contracts.memory.sizes.component import Role
from contracts.memory.sizes.extras import size_adapter, size_controlnet, size_uploaded_controlnet
from contracts.requests.entry_parameters import ControlParameters
from contracts.settings import BUILT_IN_CATALOGUE

MODELS = BUILT_IN_CATALOGUE.parent
CATALOGUE = read_catalogue(BUILT_IN_CATALOGUE)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_a_controlnet_has_a_size_and_says_whether_the_vae_encodes_its_image(family: str) -> None:
    net = size_controlnet(CATALOGUE, f"shapes-{family}-canny", 4)
    assert net is not None
    assert (net.name, net.role) == (f"controlnet:shapes-{family}-canny", Role.CONTROLNET)
    assert net.bytes > 0
    assert net.activations.peaks
    assert net.activations.encodes_controls is (family != "sdxl")


def test_an_uploaded_controlnet_has_the_size_that_its_job_says_and_one_component_for_each_content() -> None:
    first, second = (
        ControlParameters(controlnet="mine", key="inputs/x.safetensors", sha256=letter * 64, values=1000)
        for letter in "ab"
    )
    nets = [size_uploaded_controlnet(control, "sdxl", 2) for control in (first, second)]
    assert [net.bytes for net in nets if net is not None] == [2000, 2000]
    assert len({net.name for net in nets if net is not None}) == 2
    assert size_uploaded_controlnet(ControlParameters(controlnet="of-the-catalogue"), "sdxl", 2) is None


@pytest.mark.parametrize(
    ("family", "source", "bytes_", "origin"),
    [
        ("sdxl", "diffusers/controlnet-canny-sdxl-1.0", 2_502_028_320, "architecture"),
        ("sdxl", "somebody/controlnet", 2_502_028_320, "assumed"),
        ("sdxl", "xinsir/controlnet-union-sdxl-1.0", 2_511_917_600, "architecture"),
        ("sd3", "InstantX/SD3-Controlnet-Canny", 1_190_857_728, "architecture"),
        ("sd3", "somebody/controlnet", 4_307_037_952, "assumed"),
        ("flux", "Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro-2.0", 4_281_753_600, "architecture"),
    ],
)
def test_a_controlnet_on_a_hub_has_the_published_size_or_that_of_its_familys_largest(
    family: str, source: str, bytes_: int, origin: str
) -> None:
    modes = ("openpose", "depth") if "sdxl-1.0" in source and "union" in source else ()
    away = ControlNetSpec(id="away", family=family, source=source, modes=modes)
    net = size_controlnet(CATALOGUE.model_copy(update={"controlnets": (away,)}), "away", 2)
    assert net is not None
    assert (net.bytes, net.origin) == (bytes_, origin)
    assert net.activations.residuals.pixel > 0


def test_an_adapters_size_comes_from_its_file() -> None:
    adapter = size_adapter(CATALOGUE, "shapes-sdxl-tint", 4)
    assert adapter is not None
    size = (MODELS / "loras" / "shapes-sdxl-tint.safetensors").stat().st_size
    assert 0 < adapter.bytes < 3 * size
