"""AUTOMATIC1111's API: `webuiapi` as it is released, what is translated to what, and what is refused by name."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from webuiapi import ControlNetUnit, WebUIApi

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.jobs.events import Preview
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.built_in import built_in_rows
from tests.support.hypernetworks import make_networks, write_hypernetwork
from tests.support.images import draw_shape, encode_image, left_half_mask, open_png, png_header, to_base64
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

TXT2IMG, IMG2IMG, OPTIONS = "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/options"
PROMPT = {"prompt": "a red circle"}
IMAGE, MASK = to_base64(draw_shape()), to_base64(left_half_mask())
IMG2IMG_BODY: dict[str, Any] = {**PROMPT, "init_images": [IMAGE]}
UNIT: dict[str, Any] = {"model": "shapes-sdxl-silhouette", "image": IMAGE}
#: What a unit says of its preprocessor; ours, and the values of its options.
MODULES: list[tuple[dict[str, Any], str, tuple[float, ...]]] = [
    ({"module": "canny", "pixel_perfect": True}, "canny", (100, 200, 64)),
    (
        {"module": "Canny", "processor_res": 128, "threshold_a": 20, "threshold_b": 90.4},
        "canny",
        (20, 90, 128),
    ),
    ({"module": "canny", "threshold_a": 90, "threshold_b": 20}, "canny", (20, 90, 64)),
    ({"module": "canny", "threshold_a": -1, "processor_res": -1}, "canny", (100, 200, 512)),
    ({"module": "invert (from white bg & black line)"}, "invert", (64,)),
    ({"module": "blur_gaussian", "threshold_a": 2.5, "threshold_b": 99}, "blur", (2.5, 64)),
]
SMALL = {"width": 64, "height": 64}


def webui(client: TestClient) -> WebUIApi:
    """The client from PyPI; its requests go through this session."""
    api = WebUIApi(baseurl="http://testserver/sdapi/v1")
    api.session = client
    api.check_extensions()
    return api


def refused(response: Any) -> list[str]:
    """The fields that an error names, in the form of the web UI's own errors."""
    body = response.json()
    assert response.status_code == 422, body
    assert body.keys() == {"error", "detail", "body", "errors"}
    fields = [".".join(map(str, entry["loc"][1:])) for entry in body["detail"]]
    assert all(name in body["errors"] for name in fields)
    return fields


def test_every_field_of_the_client_is_taken_as_it_sends_it_by_default(
    settings: SharedSettings, tmp_path: Path, jobs: list[JobRecord]
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(built_in_rows().replace("max_pixels = 65_536", "max_pixels = 262_144"), "utf-8")
    large = settings.model_copy(update={"catalogue": catalogue})
    with TestClient(create_app(ApiSettings(shared=large))) as client:
        api = webui(client)

        answers = [
            api.txt2img(prompt="x"),
            api.img2img(images=[draw_shape()], prompt="x"),
            api.img2img(images=[draw_shape()], mask_image=left_half_mask(), prompt="x"),
        ]

    assert api.has_controlnet
    assert [answer.image.size for answer in answers] == [(512, 512)] * 3
    assert [job.parameters.task for job in jobs] == ["txt2img", "img2img", "inpaint"]
    first, second, third = (job.parameters for job in jobs)
    assert (first.scheduler, first.num_inference_steps, first.guidance_scale) == ("euler_a", 20, 7.0)
    assert (first.prompt_syntax, first.negative_prompt, first.batchable) == ("a1111", None, True)
    assert (second.strength, second.fit) == (0.75, "stretch")
    assert (third.mask_blur, third.padding_mask_crop) == (4, 0)
    assert answers[0].info["seed"] == first.seed
    assert answers[0].info["job"] == jobs[0].id


def test_fields_are_translated_to_those_of_our_own_requests(client: TestClient, jobs: list[JobRecord]) -> None:
    response = client.post(
        TXT2IMG,
        json={
            **PROMPT, "negative_prompt": "green", "width": 96, "height": 64, "seed": 0, "steps": 9, "cfg_scale": 2,
            "sampler_name": "DPM++ 2M", "scheduler": "Karras", "batch_size": 2, "n_iter": 2, "eta": 0.3,
            "override_settings": {"sd_model_checkpoint": "shapes-sdxl.safetensors [6e343d0455]",
                                  "CLIP_stop_at_last_layers": 2, "live_previews_enable": False},
            "force_task_id": "task(1)", "hr_scale": 3, "subseed": 5, "send_images": False,
        },
    )  # fmt: skip

    assert response.status_code == 200, response.text
    (job,) = jobs
    ours = job.parameters
    assert (ours.negative_prompt, ours.width, ours.height, ours.seed) == ("green", 96, 64, 0)
    assert (ours.num_inference_steps, ours.guidance_scale, ours.scheduler) == (9, 2.0, "dpmpp_2m_karras")
    assert (ours.num_images, ours.model, ours.clip_skip, ours.previews) == (4, "shapes-sdxl", 1, 0)
    assert (job.metadata, job.response_format) == ({"force_task_id": "task(1)"}, "b64_json")
    answer = response.json()
    assert (answer["images"], answer["parameters"]["hr_scale"]) == ([], 3)
    assert json.loads(answer["info"])["all_seeds"] == [0, 1, 2, 3]


def test_units_become_controls(client: TestClient, jobs: list[JobRecord], storage: Storage) -> None:
    api = webui(client)
    unit = ControlNetUnit(
        image=draw_shape(), model="shapes-sdxl-canny [c0ffee]", weight=0.5, guidance_start=0.1, guidance_end=0.9
    )
    other = ControlNetUnit(model="None", enabled=False)

    api.txt2img(prompt="x", **SMALL, controlnet_units=[other, unit])
    api.img2img(images=[draw_shape("square")], prompt="x", **SMALL, controlnet_units=[unit])

    (control,) = jobs[0].parameters.controls
    assert (control.controlnet, control.conditioning_scale) == ("shapes-sdxl-canny", 0.5)
    assert (control.guidance_start, control.guidance_end, jobs[0].parameters.fit) == (0.1, 0.9, "pad")
    assert storage.read(str(control.image)) == encode_image(draw_shape())
    assert [job.parameters.mode for job in jobs] == ["controlnet", "controlnet_img2img"]
    assert jobs[1].parameters.image != jobs[1].parameters.controls[0].image


def test_the_module_of_a_unit_makes_its_control_image(client: TestClient, jobs: list[JobRecord]) -> None:
    for unit, preprocess, options in MODULES:
        scripts = {"controlnet": {"args": [UNIT | unit]}}
        answer = client.post(TXT2IMG, json={**PROMPT, **SMALL, "alwayson_scripts": scripts})
        assert answer.status_code == 200, answer.text
        (control,) = jobs[-1].parameters.controls
        assert control.preprocess == preprocess
        assert tuple((control.preprocess_options or {}).values()) == options


def test_detected_images_are_those_of_the_module(client: TestClient) -> None:
    api = webui(client)

    edges = api.controlnet_detect([draw_shape(), draw_shape("square")], module="canny", processor_res=128)
    refused_by = client.post("/controlnet/detect", json={"controlnet_module": "x", "controlnet_images": [IMAGE]})

    assert [image.size for image in edges.images] == [(128, 128)] * 2
    assert {value for _, value in edges.images[0].convert("L").getcolors()} == {0, 255}
    assert refused(refused_by) == ["controlnet_module"]


def test_a_unit_without_an_image_reads_that_of_its_img2img(client: TestClient, jobs: list[JobRecord]) -> None:
    scripts = {"controlnet": {"args": [{"model": "shapes-sdxl-canny", "image": ""}]}}

    assert client.post(IMG2IMG, json=IMG2IMG_BODY | {"alwayson_scripts": scripts}).status_code == 200

    assert jobs[0].parameters.controls[0].image == jobs[0].parameters.image


def test_a_unit_whose_image_would_fill_the_output_in_another_way_is_refused(
    client: TestClient, jobs: list[JobRecord]
) -> None:
    wide = to_base64(draw_shape().resize((128, 64)))
    scripts = {"ControlNet": {"args": [UNIT, UNIT | {"image": wide, "resize_mode": "Resize and Fill"}]}}

    response = client.post(TXT2IMG, json={**PROMPT, **SMALL, "alwayson_scripts": scripts})

    assert refused(response) == ["alwayson_scripts.controlnet.args.1.resize_mode"]
    assert jobs == []


def test_what_is_masked_starts_from_its_surroundings_unless_the_image_is_asked_for(
    client: TestClient, jobs: list[JobRecord], storage: Storage
) -> None:
    body = IMG2IMG_BODY | {"mask": MASK, "inpaint_full_res": False}

    for fill in (0, 1):
        assert client.post(IMG2IMG, json=body | {"inpainting_fill": fill}).status_code == 200

    filled, kept = (open_png(storage.read(str(job.parameters.image))) for job in jobs)
    original = draw_shape()
    assert kept.tobytes() == original.tobytes()
    assert filled.crop((32, 0, 64, 64)).tobytes() == original.crop((32, 0, 64, 64)).tobytes()
    assert filled.crop((0, 0, 32, 64)).tobytes() != original.crop((0, 0, 32, 64)).tobytes()
    assert jobs[0].parameters.padding_mask_crop is None


def test_an_inverted_mask_changes_what_is_black(
    client: TestClient, jobs: list[JobRecord], storage: Storage
) -> None:
    response = client.post(IMG2IMG, json=IMG2IMG_BODY | {"mask": MASK, "inpainting_mask_invert": 1})

    assert response.status_code == 200, response.text
    mask = open_png(storage.read(str(jobs[0].parameters.mask_image)))
    assert (mask.getpixel((2, 2)), mask.getpixel((60, 2))) == (0, 255)


#: Fields of txt2img, and the one that is refused.
REFUSED: list[tuple[dict[str, Any], str]] = [
        ({"restore_faces": True}, "restore_faces"),
        ({"tiling": True}, "tiling"),
        ({"enable_hr": True, "hr_upscaler": "SwinIR"}, "hr_upscaler"),
        ({"script_name": "x/y/z plot"}, "script_name"),
        ({"script_args": [1]}, "script_args"),
        ({"styles": ["film"]}, "styles"),
        ({"sampler_name": "DPM fast"}, "sampler_name"),
        ({"sampler_index": "DPM fast"}, "sampler_name"),
        ({"scheduler": "Exponential"}, "scheduler"),
        ({"sampler_name": "Heun", "scheduler": "Karras"}, "scheduler"),
        ({"sampler_name": "flow_euler"}, "sampler_name"),
        ({"sampler_name": "DDIM", "eta": 0.5}, "eta"),
        ({"override_settings": {"sd_model_checkpoint": "dreamshaper"}}, "override_settings.sd_model_checkpoint"),
        ({"override_settings": {"sd_vae": "vae.pt"}}, "override_settings.sd_vae"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 9}}, "override_settings.CLIP_stop_at_last_layers"),
        ({"override_settings": {"unknown": 1}}, "override_settings.unknown"),
        (
            {"override_settings": {"samples_format": "png"}, "override_settings_restore_afterwards": False},
            "override_settings_restore_afterwards",
        ),
        ({"n_iter": 3, "batch_size": 3}, "n_iter"),
        ({"subseed_strength": 0.1}, "subseed_strength"),
        ({"s_churn": 1}, "s_churn"),
        ({"refiner_checkpoint": "r"}, "refiner_checkpoint"),
        ({"width": 68}, "width"),
        ({"steps": 201}, "steps"),
        ({"cfg_scale": 31}, "cfg_scale"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x <lora:nobody:1>"}, "prompt"),
        ({"prompt": "x [a:b:0.5]"}, "prompt"),
        ({"seed": -2}, "seed"),
        ({"detailer": True}, "detailer"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, {}]}}}, "alwayson_scripts.ADetailer"),
        (
            {"alwayson_scripts": {"controlnet": {"args": [{"image": IMAGE}]}}},
            "alwayson_scripts.controlnet.args.0.model",
        ),
        (
            {"alwayson_scripts": {"controlnet": {"args": [{"enabled": False}, UNIT | {"module": "openpose"}]}}},
            "alwayson_scripts.controlnet.args.1.module",
        ),
        (
            {"alwayson_scripts": {"controlnet": {"args": [UNIT | {"control_mode": 2}]}}},
            "alwayson_scripts.controlnet.args.0.control_mode",
        ),
        (
            {"alwayson_scripts": {"controlnet": {"args": [UNIT | {"guidance_start": 1.0}]}}},
            "alwayson_scripts.controlnet.args.0.guidance_start",
        ),
]  # fmt: skip


def test_what_cannot_act_is_refused_by_its_own_name(client: TestClient, queue: JobQueue) -> None:
    for fields, field in REFUSED:
        assert field in refused(client.post(TXT2IMG, json=PROMPT | fields)), fields

    assert queue.connection.keys("*") == []


def test_messages_name_other_fields_as_the_client_does(client: TestClient) -> None:
    response = client.post(TXT2IMG, json=PROMPT | {"negative_prompt": "green", "cfg_scale": 1})

    assert refused(response) == ["negative_prompt"]
    assert "cfg_scale is 1" in response.json()["detail"][0]["msg"]


#: Fields of img2img, the status, and the field that is refused.
REFUSED_IMAGES: list[tuple[dict[str, Any], int, str]] = [
    ({"init_images": []}, 422, "init_images"),
    ({"init_images": [IMAGE, IMAGE]}, 422, "init_images"),
    ({"init_images": ["https://127.0.0.1/a.png"]}, 422, "init_images.0"),
    ({"init_images": ["/etc/passwd"]}, 422, "init_images.0"),
    ({"init_images": ["not base64!"]}, 422, "init_images.0"),
    ({"init_images": [MASK[:60]]}, 415, "init_images.0"),
    ({"mask": "http://169.254.169.254/"}, 422, "mask"),
    ({"mask": to_base64(left_half_mask(32))}, 422, "mask"),
    ({"mask": MASK, "inpainting_fill": 2}, 422, "inpainting_fill"),
    ({"mask": MASK, "latent_mask": MASK}, 422, "latent_mask"),
    ({"resize_mode": 3}, 422, "resize_mode"),
    ({"denoising_strength": 0}, 422, "denoising_strength"),
    ({"include_init_images": True}, 422, "include_init_images"),
]


def test_what_img2img_cannot_do_is_refused_by_its_own_name(client: TestClient, queue: JobQueue) -> None:
    for fields, status, field in REFUSED_IMAGES:
        response = client.post(IMG2IMG, json=IMG2IMG_BODY | fields)
        body = response.json()
        assert (response.status_code, body.keys()) == (status, {"error", "detail", "body", "errors"}), fields
        assert field in [".".join(map(str, entry["loc"][1:])) for entry in body["detail"]], fields

    assert queue.connection.keys("*") == []


def test_an_image_bomb_and_a_body_without_end_are_refused(client: TestClient, queue: JobQueue) -> None:
    bomb = _encoded(png_header(60_000, 60_000))

    pixels = client.post(IMG2IMG, json=PROMPT | {"init_images": [bomb]})
    text = client.post(TXT2IMG, json={"prompt": "x" * 300_000})
    names = client.post(TXT2IMG, json=PROMPT | {f"field{number}": 1 for number in range(90)})

    assert [answer.status_code for answer in (pixels, text, names)] == [413, 413, 422]
    assert len(names.json()["detail"]) == 50
    assert queue.connection.keys("*") == []


def test_options_are_those_of_one_api_key(client: TestClient, queue: JobQueue, jobs: list[JobRecord]) -> None:
    mine, theirs = (("anybody", ApiKeyStore(queue.connection).create(name)[1]) for name in ("mine", "theirs"))
    wait_until(lambda: client.get(OPTIONS).status_code == 401)

    options = client.get(OPTIONS, auth=mine).json()
    # Open WebUI sends back everything that it gets, with the model changed.
    changed = client.post(OPTIONS, json=options | {"sd_model_checkpoint": "shapes-flux"}, auth=mine)

    assert (changed.status_code, changed.json()) == (200, None)
    for key in (mine, theirs):
        assert client.post(TXT2IMG, json=PROMPT, auth=key).status_code == 200
    assert [job.parameters.model for job in jobs] == ["shapes-flux", "shapes-sdxl"]
    assert client.get(OPTIONS, auth=theirs).json()["sd_model_checkpoint"] == "shapes-sdxl"


def test_an_option_that_cannot_be_set_is_refused(client: TestClient, queue: JobQueue) -> None:
    for name, value in (
        ("sd_model_checkpoint", "nothing"),
        ("sd_vae", "other"),
        ("outdir_samples", "/"),
        ("CLIP_stop_at_last_layers", 0),
    ):
        assert refused(client.post(OPTIONS, json={name: value})) == [name]

    assert queue.connection.keys("*") == []


def test_progress_and_interrupt_are_about_the_callers_running_jobs(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    keys = {name: ApiKeyStore(queue.connection).create(name)[1] for name in ("mine", "theirs")}
    wait_until(lambda: client.get("/sdapi/v1/progress").status_code == 401)
    bearer = {name: {"Authorization": f"Bearer {key}"} for name, key in keys.items()}
    ids = [client.post("/v1/txt2img", json=PROMPT, headers=bearer[name]).json()["id"] for name in keys]
    waiting = client.post("/v1/txt2img", json=PROMPT, headers=bearer["mine"]).json()["id"]
    api = webui(client)
    client.auth = ("user", keys["mine"])
    idle = api.get_progress()
    claims = {claim.job.id: claim for claim in (worker.claim(), worker.claim())}
    assert set(claims) == set(ids)
    preview = Preview(index=0, step=3, steps=12, width=8, height=8, url="data:image/jpeg;base64,/9j/")
    assert worker.claims.preview(claims[ids[0]], preview)

    shown = api.get_progress()
    bare = client.get("/sdapi/v1/progress?skip_current_image=true").json()
    assert api.interrupt() == {}

    assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0.0, 0, None)
    assert (shown["state"]["job"], shown["state"]["job_count"], shown["current_image"]) == (ids[0], 1, "/9j/")
    assert shown["progress"] > 0
    assert bare["current_image"] is None
    assert queue.fetch(ids[0]).cancel_requested
    assert not queue.fetch(ids[1]).cancel_requested
    assert queue.fetch(waiting).state is JobState.QUEUED


def test_the_api_key_is_the_password_of_this_api_alone(client: TestClient, queue: JobQueue) -> None:
    key = ApiKeyStore(queue.connection).create("mine")[1]
    samplers = "/sdapi/v1/samplers"
    wait_until(lambda: client.get(samplers).status_code == 401)

    unknown = client.get(samplers)
    assert "Basic" in unknown.headers["www-authenticate"]
    assert unknown.json()["error"] == "unauthorized"
    assert client.get(samplers, auth=("anybody", key)).status_code == 200
    assert client.get(samplers, auth=("anybody", "wrong")).status_code == 401
    assert client.get(samplers, headers={"Authorization": "Basic !"}).status_code == 401
    assert client.get("/v1/jobs", auth=("anybody", key)).status_code == 401


def test_a_page_of_another_origin_cannot_use_a_password_that_the_browser_has_kept(
    client: TestClient, queue: JobQueue
) -> None:
    key = ApiKeyStore(queue.connection).create("mine")[1]
    wait_until(lambda: client.get(OPTIONS).status_code == 401)
    foreign = {"Origin": "https://evil.example"}

    assert client.post("/sdapi/v1/interrupt", auth=("me", key), headers=foreign).status_code == 403
    assert client.post("/sdapi/v1/interrupt", auth=("me", key)).status_code == 200
    bearer = {"Authorization": f"Bearer {key}"}
    assert client.post("/sdapi/v1/interrupt", headers=foreign | bearer).status_code == 200


def test_an_interrupted_call_ends_with_an_error_in_the_form_of_the_web_ui(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    def interrupt() -> None:
        claim = worker.claim_next()
        client.post("/sdapi/v1/interrupt")
        worker.claims.finish(claim, JobState.CANCELLED)

    thread = threading.Thread(target=interrupt)
    thread.start()
    response = client.post(TXT2IMG, json=PROMPT)
    thread.join(60)

    error = response.json()
    assert (response.status_code, error["error"]) == (502, "cancelled")
    assert "was cancelled" in error["detail"]


def test_parameters_are_read_from_a_png_file_and_nothing_else(client: TestClient) -> None:
    text = "a red circle\nNegative prompt: green\nSteps: 9, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x96"
    info = PngInfo()
    info.add_text("parameters", text)
    info.add_itxt("comment", "ü", zip=True)
    png = encode_image(draw_shape(), pnginfo=info)
    api = webui(client)

    answer = api.png_info(Image.open(io.BytesIO(png)))

    assert answer.info == text
    parameters = answer.parameters
    assert (parameters["Prompt"], parameters["Negative prompt"]) == ("a red circle", "green")
    assert (parameters["Seed"], parameters["Size-1"], parameters["Size-2"]) == ("5", "64", "96")
    assert client.post("/sdapi/v1/png-info", json={"image": _encoded(png)}).json()["items"] == {"comment": "ü"}
    assert client.post("/sdapi/v1/png-info", json={"image": IMAGE}).json() == {
        "info": "",
        "items": {},
        "parameters": {},
    }
    for image, status in (("https://127.0.0.1/a.png", 422), (_encoded(b"GIF89a"), 415), ("", 422)):
        assert client.post("/sdapi/v1/png-info", json={"image": image}).status_code == status


def test_every_list_of_the_client_answers(client: TestClient, tmp_path: Path) -> None:
    api = webui(client)
    network = write_hypernetwork(tmp_path / "net.safetensors", make_networks([64])).read_bytes()
    as_bytes = {"Content-Type": "application/octet-stream"}
    assert client.post("/v1/loras?name=anime", content=network, headers=as_bytes).status_code == 201

    assert {"Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names())
    assert api.util_get_scheduler_names() == ["automatic", "karras", "sgm_uniform", "uniform"]
    ids = ["shapes-flux", "shapes-kontext", "shapes-sd15", "shapes-sd3", "shapes-sdxl"]
    assert api.util_get_model_names() == ids
    assert [row["name"] for row in api.get_upscalers()][:2] == ["None", "Lanczos"]
    assert "shapes-sdxl-tint" in [row["name"] for row in api.get_loras()]
    assert "shapes-sdxl-canny" in api.controlnet_model_list()
    assert (api.controlnet_module_list()[:2], api.controlnet_version()) == (["none", "canny"], 2)
    assert api.get_latent_upscale_modes() == [{"name": "Latent"}]
    assert {"name": "anime", "path": "anime"} in api.get_hypernetworks()
    empty = (api.get_sd_vae, api.get_face_restorers, api.get_prompt_styles, api.get_realesrgan_models)
    assert [ask() for ask in empty] == [[]] * 4
    assert (api.get_embeddings(), api.refresh_checkpoints()) == ({"loaded": {}, "skipped": {}}, None)
    assert api.get_memory().keys() == {"ram", "cuda"}
    assert api.get_cmd_flags()["api"] is True
    detected = api.controlnet_detect([draw_shape()])
    assert detected.image.tobytes() == draw_shape().tobytes()
    for endpoint in ("interrogate", "extra-single-image"):
        missing = client.post(f"/sdapi/v1/{endpoint}", json={})
        assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
