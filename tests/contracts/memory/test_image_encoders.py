"""Image encoders of IP-Adapters in plans: they are in host memory, once for each job that names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue, IpAdapterSpec
from contracts.catalogue.reader import read_catalogue
from contracts.memory.plan import Placement, Plan
from contracts.memory.planner import take_capacity
from contracts.memory.policy import Policy
from contracts.requests.defaults import resolve
from contracts.requests.entry_parameters import IpAdapterParameters
from contracts.requests.schema import Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE

VALUES = 1000


def rows(folder: Path) -> Catalogue:
    (folder / "clip").mkdir()
    save_file({"a": np.zeros(VALUES, np.float16)}, folder / "clip" / "model.safetensors")
    adapters = tuple(
        IpAdapterSpec(id=id, family="sdxl", source=f"{id}.safetensors", image_encoder=str(folder / encoder))
        for id, encoder in (("look", "clip"), ("face", "clip"), ("away", "gone"))
    )
    return read_catalogue(BUILT_IN_CATALOGUE).model_copy(update={"ip_adapters": adapters})


def test_a_plan_counts_the_image_encoder_of_its_ip_adapters_once_and_in_host_memory(tmp_path: Path) -> None:
    catalogue = rows(tmp_path)
    capacity = take_capacity(catalogue, 2**30, Policy(), lambda _: 2)
    job = resolve(Txt2ImgRequest(prompt="x"), catalogue.model("shapes-sdxl"), {})

    def plan(*adapters: IpAdapterParameters) -> Plan:
        found = capacity.plan("sdxl", job.model_copy(update={"ip_adapters": adapters}))
        assert found is not None
        return found

    def named(name: str, encoder: str | None = None) -> IpAdapterParameters:
        return IpAdapterParameters(name=name, images=("inputs/a.png",), image_encoder=encoder)

    bare = plan()
    for used in (plan(named("look")), plan(named("look"), named("face")), plan(named("uploaded", "clip"))):
        (encoder,) = [part for part in used.components if part.name == "image_encoder:clip"]
        assert (encoder.placement, encoder.bytes, encoder.device_bytes) == (Placement.CPU, 4 * VALUES, 0)
        assert used.host_bytes == bare.host_bytes + 4 * VALUES
        assert used.peak_bytes == bare.peak_bytes
    assert plan(named("away")) == bare
