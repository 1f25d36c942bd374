"""ControlNet-Union of SDXL: requests name its kinds of control, and get what diffusers makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import Mode
from contracts.errors import CatalogueError, InvalidRequest
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.weights.row_files import check_row_files
from tests.support.bare_diffusers import make_pipeline
from tests.support.combinations import ALL
from tests.support.jobs import INPUT_IMAGES, complete_job, decode_pixels, generate_pixels, make_job, run_jobs
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.checkpoints.rehearsal import rehearse_controlnet
from worker.families import get_family
from worker.offload.streaming import split
from worker.pool.pool import Pool

KINDS = ("pose", "depth", "canny")
CONTROL = INPUT_IMAGES["inputs/control.png"]
PIPELINE = "StableDiffusionXLControlNetUnion{}Pipeline"
#: Mode of a job -> the form of its pipeline, and its further arguments.
FORMS: dict[Mode, tuple[str, dict[str, Any]]] = {
    Mode.CONTROLNET: ("", {}),
    Mode.CONTROLNET_IMG2IMG: ("Img2Img", {"image": INPUT_IMAGES["inputs/image.png"], "strength": 0.9}),
    Mode.CONTROLNET_INPAINT: (
        "Inpaint",
        {
            "image": INPUT_IMAGES["inputs/image.png"],
            "mask_image": INPUT_IMAGES["inputs/mask.png"],
            "strength": 0.9,
        },
    ),
}


@pytest.fixture(scope="module")
def catalogue(trained: Catalogue) -> Catalogue:
    """The shipped SDXL: its image shows the kind of a control."""
    return trained


@pytest.fixture(scope="module")
def folder(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small union: the trained ControlNet, and what tells its kinds apart drawn at random."""
    folder = tmp_path_factory.mktemp("union")
    source = catalogue.root / "controlnets" / "shapes-sdxl-canny"
    trained = diffusers.ControlNetModel.from_pretrained(source)
    width = trained.config.block_out_channels[0]
    own = {"num_control_type": len(KINDS), "num_trans_channel": width, "num_proj_channel": width}
    torch.manual_seed(3)
    net = diffusers.ControlNetUnionModel.from_config({**trained.config, **own, "num_trans_head": 4})
    net.load_state_dict(trained.state_dict(), strict=False)
    torch.nn.init.normal_(net.spatial_ch_projs.weight, std=0.3)
    net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def united(catalogue: Catalogue, folder: Path) -> Pool:
    """With two rows of the same union, as if they were two, and a plain ControlNet."""
    rows = [ControlNetSpec(id=id, family="sdxl", source=str(folder), modes=KINDS) for id in ("union", "other")]
    plain = next(row for row in catalogue.controlnets if row.id == "sdxl-hint")
    return Pool(catalogue.model_copy(update={"controlnets": (*rows, plain)}), device="cpu")


def _job(catalogue: Catalogue, *named: str, mode: Mode = Mode.CONTROLNET, **fields: Any) -> JobParameters:
    """A job with these controls, each as `id:kind:weight:start`."""
    controls = []
    for text in named:
        parts = text.split(":")
        id, kind, weight, start = (*parts, *["", "", "1", "0"][len(parts) :])
        numbers = {"conditioning_scale": float(weight or 1), "guidance_start": float(start or 0)}
        controls.append({"controlnet": id, **({"mode": int(kind)} if kind else {}), **numbers})
    usual = {"num_inference_steps": 3, "scheduler": "euler", "guidance_scale": 3.0, "strength": 0.9}
    return make_job(catalogue, "sdxl", mode, control_fields=controls, **{**usual, **fields})


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        *[(Mode.CONTROLNET, ["union:2:0.8:"])] * ALL,
        (Mode.CONTROLNET, ["union:0:0.7:0.4", "other:2::"]),
        (Mode.CONTROLNET_IMG2IMG, ["union:1:0.8:", "union:0:0.5:"]),
        (Mode.CONTROLNET_INPAINT, ["union:1::0.4"]),
    ],
)
def test_images_are_those_of_diffusers(
    mode: Mode, named: list[str], united: Pool, folder: Path, storage: Storage
) -> None:
    catalogue = united.catalogue
    job = _job(catalogue, *named, mode=mode)

    files, receipt = complete_job(job, united, storage)

    net = diffusers.ControlNetUnionModel.from_pretrained(folder)
    form, more = FORMS[mode]
    ids = dict.fromkeys(control.controlnet for control in job.controls)
    nets = net if len(ids) == 1 else [net] * len(ids)
    pipeline = make_pipeline(catalogue.root / "shapes-sdxl", PIPELINE.format(form), controlnet=nets)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline(
        "a red circle", control_image=[CONTROL] * len(named), control_mode=[one.mode for one in job.controls],
        controlnet_conditioning_scale=[one.conditioning_scale for one in job.controls],
        control_guidance_start=[one.guidance_start for one in job.controls], num_inference_steps=3,
        guidance_scale=3.0, width=64, height=64, generator=torch.Generator().manual_seed(7), **more,
    ).images[0]  # fmt: skip
    expected = np.asarray(theirs).astype(np.int16)
    ours = decode_pixels(files[0])
    if mode is Mode.CONTROLNET_INPAINT:
        inside = np.asarray(INPUT_IMAGES["inputs/mask.png"]) == 255
        ours, expected = ours[inside], expected[inside]
    assert np.array_equal(ours, expected)
    assert [used.id for used in receipt.controlnets] == [one.controlnet for one in job.controls]


def test_jobs_share_calls_with_unions_and_the_next_one_is_as_before(united: Pool, storage: Storage) -> None:
    fields: dict[str, Any] = {"batchable": True}
    plain = _job(united.catalogue, "sdxl-hint")
    before = generate_pixels(plain, united, storage)
    batch = [
        _job(united.catalogue, "union:0", num_images=2, **fields),
        _job(united.catalogue, "union:0:0.4", **fields),
        _job(united.catalogue, "union:2", **fields),
        make_job(united.catalogue, "sdxl", num_inference_steps=3, scheduler="euler", guidance_scale=3.0, **fields),
    ]
    outcomes = run_jobs(batch, united, storage)
    assert all(outcome.receipt.joined for outcome in outcomes)
    firsts = []
    for job, outcome in zip(batch, outcomes, strict=True):
        (alone,) = run_jobs(job, united, storage)
        pixels = [decode_pixels(storage.read(image.key)) for image in alone.stored]
        firsts.append(pixels[0])
        for image, single in zip(outcome.stored, pixels, strict=True):
            assert np.abs(decode_pixels(storage.read(image.key)) - single).max() <= 1
    assert all(np.abs(firsts[0] - other).max() > 2 for other in firsts[1:])
    assert np.array_equal(generate_pixels(plain, united, storage), before)


@pytest.mark.parametrize(
    ("named", "problems"),
    [
        (["union"], {"controls.0.mode": "is required: union is a union of 3 kinds"}),
        (["union:3"], {"controls.0.mode": "must be a kind of union, got 3"}),
        (
            ["union:0", "sdxl-hint"],
            {
                "controls.1.controlnet": "sdxl-hint cannot act beside union, which is a union: unions of sdxl act "
                "beside other unions and T2I-Adapters; remove one of the two"
            },
        ),
        (
            ["union:0", "union:1:0:0.5"],
            {
                "controls.1.conditioning_scale": "must be greater than 0 with several kinds of one union, here "
                "union: this kind would still act in part; remove the control",
                "controls.1.guidance_start": "is not supported with several kinds of one union, here union: they "
                "act at every step; remove it",
            },
        ),
        (
            ["union:0", "other:0", "union:1"],
            {
                f"controls.{number}.controlnet": "names union several times beside another: several kinds of a "
                "union act alone only"
                for number in (0, 2)
            },
        ),
    ],
)
def test_controls_that_diffusers_cannot_run_together_are_refused(
    named: list[str], problems: dict[str, str], united: Pool
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _job(united.catalogue, *named)
    assert {problem.field: problem.message for problem in caught.value.problems} == problems


@pytest.mark.parametrize(
    ("change", "modes", "reason"),
    [
        ({}, (), r"a union of 3 kinds of control .* its row names 0: all of them must be in `modes`"),
        ({}, ("pose",), "its row names 1"),
        ({"num_control_type": None}, KINDS, "a union of 6 kinds"),
        ({"_class_name": "ControlNetModel"}, KINDS, "it has one kind: remove them"),
        ({"_class_name": "ControlNetModel_Union"}, KINDS, None),
    ],
)
def test_a_row_names_all_kinds_of_a_union(
    change: dict[str, Any], modes: tuple[str, ...], reason: str | None, folder: Path, catalogue: Catalogue,
    tmp_path: Path,
) -> None:  # fmt: skip
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | change
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({key: one for key, one in config.items() if one is not None}))
    family, row = get_family("sdxl"), ControlNetSpec(id="one", family="sdxl", source=str(tmp_path), modes=modes)
    if reason is None:
        check_row_files(catalogue, row)
        rehearse_controlnet(family, tmp_path, len(modes))
        loaded = load_controlnet(family, tmp_path, torch.float32, modes=len(modes))
        assert type(loaded) is diffusers.ControlNetUnionModel
        return
    for check in (
        lambda: check_row_files(catalogue, row),
        lambda: rehearse_controlnet(family, tmp_path, len(modes)),
        lambda: load_controlnet(family, tmp_path, torch.float32, modes=len(modes)),
    ):
        with pytest.raises(CatalogueError, match=reason):
            check()


def test_a_layer_that_torchs_attention_reads_by_itself_is_streamed_with_it(folder: Path) -> None:
    net = diffusers.ControlNetUnionModel.from_pretrained(folder)
    called = set()
    for name, part in net.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.add(name))
    rows = {"text_embeds": torch.zeros(1, 64), "time_ids": torch.zeros(1, 6)}
    net(
        torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 3, 128), [torch.zeros(1, 3, 64, 64)],
        torch.eye(len(KINDS))[:1], [0], added_cond_kwargs=rows,
    )  # fmt: skip
    members, groups = split(net, "leaf")
    names = {part: name for name, part in net.named_modules()}
    assert {names[part] for part in members} <= called
    assert sum(len(group) for group in groups) == len(list(net.parameters()))
