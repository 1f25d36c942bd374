"""A request read from a file: of each program, what cannot be read by name, and hostile files."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from contracts.jobs.records import JobRecord
from contracts.queue.client import JobQueue
from contracts.redis import keys
from tests.support.images import draw_shape, encode_image, to_data_url

ROUTE = "/v1/png-info"
WEB_UI = (
    "a red circle <lora:shapes-sdxl-tint:0.5> <lora:nobody:1>\nNegative prompt: green\n"
    "Steps: 9, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3.5, Seed: 5, Size: 64x96, Clip skip: 2, "
    "Model hash: 6e343d0455, Model: shapes-sdxl, RNG: CPU, Version: v1.10.1"
)


def png(**texts: str) -> bytes:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name.replace("__", ":").replace("_dot_", "."), text, zip=True)
    return encode_image(draw_shape(), pnginfo=info)


def read(client: TestClient, file: bytes) -> Any:
    response = client.post(ROUTE, content=file, headers={"Content-Type": "application/octet-stream"})
    assert response.status_code == 200, response.text
    return response.json()


def left_out(answer: Any) -> dict[str, str]:
    return {entry["field"]: entry["reason"] for entry in answer["not_read"]}


def is_accepted(client: TestClient, request: Any) -> bool:
    return client.post("/v1/plan", json=request).status_code == 200


def test_a_file_of_the_web_ui_is_a_request_without_what_is_unknown_here(client: TestClient) -> None:
    answer = read(client, png(parameters=WEB_UI))

    assert (answer["program"], answer["missing"], answer["texts"]) == ("a1111", [], ["parameters"])
    assert answer["request"] == {
        "task": "txt2img", "prompt": "a red circle <lora:shapes-sdxl-tint:0.5>", "prompt_syntax": "a1111",
        "negative_prompt": "green", "num_inference_steps": 9, "scheduler": "dpmpp_2m_karras",
        "guidance_scale": 3.5, "seed": 5, "width": 64, "height": 96, "clip_skip": 1, "model": "shapes-sdxl",
    }  # fmt: skip
    assert left_out(answer).keys() == {"RNG", "<lora:nobody>"}
    assert "unknown LoRA" in left_out(answer)["<lora:nobody>"]
    assert is_accepted(client, answer["request"])


def test_what_no_request_may_have_is_named_as_the_file_names_it(client: TestClient) -> None:
    text = WEB_UI.replace("shapes-sdxl,", "dreams,").replace("DPM++ 2M", "DPM adaptive").replace("64x96", "63x96")

    answer = read(client, png(parameters=text))

    assert left_out(answer).keys() == {"RNG", "<lora:nobody>", "Model", "Sampler", "Size-1"}
    assert "unknown model 'dreams'" in left_out(answer)["Model"]
    assert answer["request"]["height"] == 96
    assert is_accepted(client, answer["request"])


def test_images_that_a_file_was_made_from_are_named_as_missing(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for more, task, missing in [
        ("Denoising strength: 0.4", "img2img", ["image"]),
        ("Denoising strength: 0.4, Mask blur: 6", "inpaint", ["image", "mask_image"]),
        ("Denoising strength: 0.4, Hires upscale: 2", "txt2img", []),
    ]:
        with subtests.test(more=more, task=task, missing=missing):
            answer = read(client, png(parameters=f"a red circle\nSteps: 9, {more}, Seed: 5, Size: 64x64"))

            assert (answer["request"]["task"], answer["missing"]) == (task, missing)
            assert answer["request"].get("strength") == (None if task == "txt2img" else 0.4)
            images = dict.fromkeys(missing, to_data_url(Image.new("RGB", (64, 64), "white")))
            assert is_accepted(client, answer["request"] | images)


def test_the_guidance_of_a_flux_file_of_forge_is_the_distilled_one(client: TestClient) -> None:
    text = "a cat\nSteps: 4, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 5, Size: 64x64, Model: shapes-flux"

    answer = read(client, png(parameters=text))

    assert (answer["request"]["guidance_scale"], answer["not_read"]) == (3.5, [])
    assert is_accepted(client, answer["request"])


def test_loras_of_another_form_are_named_and_never_lost(client: TestClient) -> None:
    files = [
        png(invokeai_metadata=json.dumps({"positive_prompt": "a", "loras": ["tint"]})),
        png(XML__com_dot_adobe_dot_xmp='<exif:UserComment>{"c": "a", "lora": "tint"}</exif:UserComment>'),
    ]

    answers = [read(client, file) for file in files]

    assert [list(left_out(answer)) for answer in answers] == [["loras"], ["lora"]]
    assert [answer["request"] for answer in answers] == [{"task": "txt2img", "prompt": "a"}] * 2


def test_a_file_of_invokeai_is_a_request(client: TestClient) -> None:
    metadata = {
        "app_version": "5.4.0", "generation_mode": "sdxl_txt2img", "positive_prompt": "a red circle",
        "negative_prompt": "", "width": 64, "height": 64, "seed": 5, "rand_device": "cpu", "cfg_scale": "3.5",
        "cfg_rescale_multiplier": 0, "steps": 9, "scheduler": "dpmpp_2m_k", "clip_skip": 0,
        "model": {"key": "1", "hash": "2", "name": "shapes-sdxl", "base": "sdxl", "type": "main"},
        "loras": [{"model": {"name": "shapes-sdxl-tint"}, "weight": 0.5}, {"model": {"name": "no"}, "weight": 1}],
        "seamless_x": True, "controlnets": [],
    }  # fmt: skip

    answer = read(client, png(invokeai_metadata=json.dumps(metadata), invokeai_workflow="{}"))

    request = answer["request"]
    assert (answer["program"], answer["missing"]) == ("invokeai", [])
    assert (request["model"], request["scheduler"], request["guidance_scale"]) == (
        "shapes-sdxl",
        "dpmpp_2m_karras",
        3.5,
    )
    assert [lora["name"] for lora in request["loras"]] == ["shapes-sdxl-tint"]
    assert left_out(answer).keys() == {"seamless_x", "loras.no"}
    assert is_accepted(client, request)


def test_a_file_of_draw_things_is_a_request(client: TestClient) -> None:
    comment = {
        "c": "a red & blue circle", "uc": "green", "model": "shapes-sdxl", "sampler": "DPM++ 2M Karras", "seed": 5,
        "scale": 3.5, "steps": 9, "size": "64x96", "strength": 1, "seed_mode": "Scale Alike",
        "lora": [{"model": "shapes-sdxl-tint.ckpt", "weight": 0.5}],
    }  # fmt: skip
    escaped = json.dumps(comment).replace("&", "&amp;").replace('"', "&quot;")
    item = f'<rdf:Alt><rdf:li xml:lang="x-default">{escaped}</rdf:li></rdf:Alt>'
    xmp = f"<x:xmpmeta><exif:UserComment>{item}</exif:UserComment></x:xmpmeta>"

    answer = read(client, png(XML__com_dot_adobe_dot_xmp=xmp))

    request = answer["request"]
    assert (answer["program"], request["task"], request["prompt"]) == ("draw_things", "txt2img", comment["c"])
    assert (request["width"], request["height"], request["scheduler"]) == (64, 96, "dpmpp_2m_karras")
    assert request["loras"][0]["scale"] == 0.5
    assert left_out(answer).keys() == {"seed_mode"}
    assert is_accepted(client, request)


def test_a_workflow_of_comfyui_is_left_alone_and_named(client: TestClient) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = 'workflow:{"nodes": []}'
    files = [png(prompt='{"3": {}}', workflow='{"nodes": []}'), encode_image(draw_shape(), "webp", exif=exif)]

    answers = [read(client, file) for file in files]

    assert [(answer["program"], answer["request"]) for answer in answers] == [("comfyui", None)] * 2
    assert [sorted(left_out(answer)) for answer in answers] == [["prompt", "workflow"], ["Make"]]
    assert "ComfyUI" in left_out(answers[0])["workflow"]
    both = read(client, png(parameters=WEB_UI, workflow='{"nodes": []}'))
    assert (both["program"], both["request"]["seed"]) == ("a1111", 5)
    assert "workflow" in left_out(both)


def test_files_that_say_nothing_have_no_request_and_other_files_are_refused(client: TestClient) -> None:
    answer = read(client, encode_image(draw_shape(), "jpeg"))
    assert (answer["program"], answer["request"], answer["not_read"]) == (None, None, [])

    gif = client.post(ROUTE, content=encode_image(draw_shape(), "gif"), headers={"Content-Type": "image/gif"})
    assert (gif.status_code, gif.json()["errors"][0]["allowed"]) == (415, ["png", "jpeg", "webp"])
    form = client.post(ROUTE, files={"file": ("a.png", png(parameters=WEB_UI), "image/png")})
    assert form.json()["request"]["seed"] == 5


DEEP = "[" * 100_000
HOSTILE = {
    "deep": {"darkroom": '{"seed": 1, "parameters": ' + DEEP, "invokeai_metadata": '{"model": ' + DEEP},
    "numbers": {"parameters": "a\nSteps: 9e999, Seed: 99999999999999999999, Size: 99999x0, CFG scale: nan, A: b"},
    "types": {"invokeai_metadata": json.dumps({
        "positive_prompt": ["a"], "seed": {"a": 1}, "loras": {"a": 1}, "model": [1], "scheduler": 5, "steps": True,
    })},
    "entries": {"invokeai_metadata": json.dumps({
        "positive_prompt": "a", "loras": [{"model": {"name": "a"}, "weight": 1}] * 5000,
        **{f"field {number}": 1 for number in range(5000)},
    })},
    "receipt": {"darkroom": json.dumps({
        "seed": 2**70, "parameters": {"task": "edit", "prompt": 5, "references": [1]},
    })},
    "quotes": {"parameters": "a\n" + 'Steps: "' * 20_000},
    "tags": {"parameters": "<lora:" * 10_000 + "\nSteps: 9, Seed: 5, Size: 64x64"},
    "markup": {"XML__com_dot_adobe_dot_xmp": "<exif:UserComment>" + "&lt;" * 50_000 + "</exif:UserComment>"},
}  # fmt: skip


def test_a_hostile_file_is_answered_and_what_is_returned_would_be_accepted(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for name in HOSTILE:
        with subtests.test(name=name):
            answer = read(client, png(**HOSTILE[name]))

            assert len(answer["not_read"]) <= 50
            assert answer["request"] is None or answer["missing"] or is_accepted(client, answer["request"])


def test_many_packed_texts_are_answered(client: TestClient) -> None:
    bomb = b"parameters\0\0" + zlib.compress(b"x" * 20_000_000)
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + bytes(4)

    answer = read(client, b"\x89PNG\r\n\x1a\n" + chunk * 300)

    assert answer["texts"] == ["parameters"]


def test_the_request_of_an_image_is_that_of_its_job_and_names_inputs_that_are_uploaded(
    client: TestClient, jobs: list[JobRecord]
) -> None:
    file = encode_image(draw_shape())
    upload = client.post("/v1/uploads", content=file, headers={"Content-Type": "image/png"}).json()["id"]
    body = {"prompt": "a red circle", "seed": 7, "num_images": 2, "strength": 0.5, "image": upload}
    job = client.post("/v1/img2img", json=body, headers={"Prefer": "wait=30"}).json()
    path = f"/v1/jobs/{job['id']}/images"

    shown = client.get(f"{path}/1/parameters").json()

    assert (shown["program"], shown["missing"], shown["not_read"]) == ("darkroom", [], [])
    assert (shown["n"], shown["request"]["seed"], shown["request"]["num_images"]) == (1, 7, 2)
    assert (shown["request"]["task"], shown["request"]["image"]) == ("img2img", upload)
    again = client.post("/v1/img2img", json=shown["request"], headers={"Prefer": "wait=30"})
    assert again.status_code == 200, again.text
    assert jobs[1].parameters == jobs[0].parameters
    assert [client.get(f"{path}/{n}/parameters").status_code for n in ("2", "x")] == [404, 404]


def test_an_input_that_is_not_uploaded_is_missing(client: TestClient, jobs: list[JobRecord]) -> None:
    image = to_data_url(draw_shape())
    controls = [{"controlnet": "shapes-sdxl-silhouette", "image": image}]
    body = {"prompt": "a red circle", "seed": 7, "controls": controls}
    job = client.post("/v1/controlnet", json=body, headers={"Prefer": "wait=30"}).json()

    shown = client.get(f"/v1/jobs/{job['id']}/images/0/parameters").json()

    assert shown["missing"] == ["controls.0.image"]
    shown["request"]["controls"][0]["image"] = image
    again = client.post("/v1/controlnet", json=shown["request"], headers={"Prefer": "wait=30"})
    assert again.status_code == 200, again.text
    assert jobs[1].parameters == jobs[0].parameters


def test_the_record_of_another_release_is_a_conflict(
    client: TestClient, queue: JobQueue, jobs: list[JobRecord]
) -> None:
    job = client.post("/v1/txt2img", json={"prompt": "a red circle"}, headers={"Prefer": "wait=30"}).json()
    assert len(jobs) == 1
    queue.connection.hset(keys.JOB + job["id"], "parameters", '{"task": "another"}')

    shown = client.get(f"/v1/jobs/{job['id']}/images/0/parameters")

    assert (shown.status_code, shown.json()["code"]) == (409, "conflict")
