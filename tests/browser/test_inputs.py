"""Images that go into a request: dropped, pasted, chosen, painted; and files that bring parameters."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from tests.browser.studio import Studio
from tests.support.images import draw_shape, encode_image, solid_image


def test_a_mask_is_painted_with_the_brush_and_repaints_only_there(studio: Studio, picture: Path) -> None:
    studio.choose("Inpaint")
    studio.page.set_input_files("#field-image", picture)
    canvas = studio.page.locator("mask-brush canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    # From left to right through the upper half of the image.
    studio.page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.25 * box["height"])
    studio.page.mouse.down()
    studio.page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.25 * box["height"], steps=6)
    studio.page.mouse.up()
    job = studio.wait_for(studio.generate("a red circle on a blue background"), "completed")

    with Image.open(studio.stored(job["receipt"]["parameters"]["mask_image"])) as mask:
        levels = mask.convert("L")
        assert levels.size == (64, 64)
        assert [levels.getpixel((x, 16)) for x in (14, 32, 50)] == [255, 255, 255]
        assert [levels.getpixel(place) for place in ((32, 40), (2, 16), (61, 16), (32, 2))] == [0, 0, 0, 0]


def test_a_mask_is_painted_by_keyboard_and_inverted(studio: Studio, picture: Path) -> None:
    studio.choose("Inpaint")
    studio.drop("[data-field=image] .drop", picture)
    canvas = studio.page.locator("mask-brush canvas")
    canvas.focus()
    for key in ("ArrowUp", "ArrowUp", " "):
        studio.page.keyboard.press(key)
    studio.page.get_by_role("button", name="Invert").click()
    job = studio.wait_for(studio.generate("a red circle on a blue background"), "completed")

    with Image.open(studio.stored(job["receipt"]["parameters"]["mask_image"])) as mask:
        levels = mask.convert("L")
        assert [levels.getpixel(place) for place in ((32, 22), (2, 2), (32, 50))] == [0, 255, 255]


def test_a_pasted_image_is_the_input_of_the_task(studio: Studio, picture: Path) -> None:
    studio.choose("From image")
    studio.paste(picture)
    expect(studio.page.locator("[data-field=image] img")).to_have_count(1)
    job = studio.wait_for(studio.generate("a red circle on a blue background"), "completed")

    assert job["task"] == "img2img"
    assert job["receipt"]["parameters"]["image"].startswith("inputs/")


def test_a_control_takes_a_dropped_image(studio: Studio, tmp_path: Path) -> None:
    shape = tmp_path / "shape.png"
    shape.write_bytes(encode_image(solid_image("white")))
    studio.choose("Control")
    studio.page.get_by_role("button", name="Add Control").click()
    studio.drop("[data-field='controls.0.image'] .drop", shape)
    expect(studio.page.locator("[data-field='controls.0.image'] img")).to_have_count(1)
    job = studio.wait_for(studio.generate("a red circle on a blue background"), "completed")

    (control,) = job["receipt"]["parameters"]["controls"]
    assert control["controlnet"] == "shapes-sdxl-silhouette"


def test_a_finished_image_is_sent_to_img2img(studio: Studio) -> None:
    card = studio.generate("a red circle on a blue background", Steps="4")
    first = studio.wait_for(card, "completed")

    card.get_by_role("button", name="To img2img").click()

    expect(studio.page.get_by_role("radio", name="From image")).to_be_checked()
    expect(studio.page.locator("[data-field=image] img")).to_have_count(1)
    job = studio.wait_for(studio.generate("a yellow square on a green background"), "completed")
    assert (job["task"], job["model"]) == ("img2img", first["model"])


def test_a_generated_file_that_is_dropped_on_the_page_makes_the_same_image(studio: Studio, picture: Path) -> None:
    studio.drop("#images", picture)

    expect(studio.page.locator("#field-prompt")).to_have_value("a green star on a white background")
    expect(studio.page.locator("#field-seed")).to_have_value("41")
    expect(studio.page.locator("#field-num_inference_steps")).to_have_value("9")
    job = studio.wait_for(studio.generate("a green star on a white background"), "completed")
    assert studio.service.bytes_of(job) == picture.read_bytes()


def test_jpeg_and_webp_bring_their_parameters_too(studio: Studio, tmp_path: Path) -> None:
    for seed, name in enumerate(("jpeg", "webp"), start=5):
        job = studio.service.run("txt2img", seed=seed, num_inference_steps=2, output_format=name)
        file = tmp_path / f"image.{name}"
        file.write_bytes(studio.service.bytes_of(job))

        studio.drop("#images", file, f"image/{name}")

        expect(studio.page.locator("#field-seed")).to_have_value(str(seed))
        expect(studio.page.locator("#field-output_format option:checked")).to_have_text(name)


def test_a_file_of_another_program_brings_what_there_are_fields_for(studio: Studio, tmp_path: Path) -> None:
    chunks = PngInfo()
    pairs = "Steps: 21, Sampler: Euler a, CFG scale: 6.5, Seed: 123, Size: 128x64, Model: other"
    text = f"a (red:1.2) circle\nNegative prompt: blur, \nnoise\n{pairs}"
    chunks.add_text("parameters", text, zip=True)
    file = tmp_path / "other.png"
    solid_image("blue").save(file, pnginfo=chunks)

    studio.drop("#images", file)

    expect(studio.page.locator("#field-prompt")).to_have_value("a (red:1.2) circle")
    expect(studio.page.locator("#field-negative_prompt")).to_have_value("blur, \nnoise")
    for name, value in {
        "num_inference_steps": "21",
        "guidance_scale": "6.5",
        "seed": "123",
        "width": "128",
    }.items():
        expect(studio.page.locator(f"#field-{name}")).to_have_value(value)
    expect(studio.page.locator("#field-prompt_syntax option:checked")).to_have_text("a1111")
    expect(studio.page.locator(".said")).to_contain_text("Model other is not available here")


def test_a_file_without_parameters_and_one_that_is_cut_off_are_named(
    studio: Studio, picture: Path, tmp_path: Path
) -> None:
    plain, damaged = tmp_path / "plain.png", tmp_path / "damaged.png"
    plain.write_bytes(encode_image(solid_image("blue")))
    damaged.write_bytes(picture.read_bytes()[:60])
    for file in (plain, damaged):
        studio.drop("#images", file)
        expect(studio.page.locator(".said")).to_contain_text(f"{file.name} has no parameters inside")


def test_a_photo_becomes_a_control_image_with_the_options_of_its_preprocessor(
    studio: Studio, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    draw_shape("square", "white", "blue").resize((256, 256)).save(photo)
    studio.choose("Control")
    studio.page.get_by_role("button", name="Add Control").click()
    studio.drop("[data-field='controls.0.image'] .drop", photo)
    options = studio.page.locator("[data-field='controls.0.preprocess_options'] [data-field]")
    expect(options).to_have_count(0)
    studio.page.locator("#field-controls-0-preprocess").fill("canny")
    expect(options).to_have_count(3)
    studio.page.locator("#field-controls-0-preprocess_options-low_threshold").fill("256")
    studio.fill(Prompt="a shape")
    studio.page.get_by_role("button", name="Generate").click()
    error = studio.page.locator("#field-controls-0-preprocess_options-low_threshold-error")
    expect(error).to_contain_text("within 1–255")
    studio.page.locator("#field-controls-0-preprocess_options-low_threshold").fill("60")

    job = studio.wait_for(studio.generate("a red shape on a white background", Steps="2"), "completed")
    (control,) = job["receipt"]["parameters"]["controls"]
    assert (control["preprocess"], control["preprocess_options"]["low_threshold"]) == ("canny", 60)
