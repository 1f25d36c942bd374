"""`make demo`: starts the service, generates images of each task through HTTP, and writes a contact sheet.

Shows one progress bar and the result. What the service logs is in a file, which is named.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from cli.client import Client, Json, ServiceError
from cli.commands.generate import compose
from cli.job_run import require_completed, save
from cli.main import build_parser

FOLDER = Path("demo")
LOG = FOLDER / "service.log"
SIDE = 64
_TASKS = ("txt2img", "img2img", "inpaint", "silhouette")
_ALL = (*_TASKS, "canny", "outline", "two-loras", "crescent")
#: shapes-NAME -> its scenes, of which its trained ControlNets and LoRAs are some.
_SCENES = {
    "sdxl": _ALL,
    "sd3": _ALL,
    "flux": _ALL,
    "sd15": (*_TASKS, "stripes"),
    "kontext": ("colour", "background", "shape", "place", "size"),
}


@dataclass(frozen=True)
class Scene:
    """One image of the demo: its file name, and the arguments of `darkroom generate`."""

    name: str
    words: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file that the image is written to."""
        return FOLDER / f"{self.name}.png"


def scenes_of(family: str) -> list[Scene]:
    """List one scene a task, most of them made from the first image or a drawing, and some with LoRAs."""
    first, mask, silhouette, contours, reference = (
        str(FOLDER / f"{name}.png")
        for name in (f"{family}-txt2img", "mask", "silhouette", "contours", "reference")
    )
    shapes = f"shapes-{family}"
    square = "a large cyan square on a black background"
    scenes = {
        "txt2img": ("a red circle on a blue background",),
        "img2img": ("a yellow circle on a green background", "--image", first, "--strength", "0.8"),
        "inpaint": ("a white star on a blue background", "--image", first, "--mask", mask, "--strength", "1"),
        "silhouette": ("a yellow shape on a purple background", "--control", f"{shapes}-silhouette={silhouette}"),
        "canny": ("a white shape on a red background", "--control", f"{shapes}-canny={contours}"),
        "stripes": (square, "--lora", f"{shapes}-stripes"),
        "outline": (square, "--lora", f"{shapes}-outline"),
        "two-loras": (square, "--lora", f"{shapes}-outline", "--lora", f"{shapes}-stripes"),
        "colour": ("make it yellow", "--reference", reference),
        "background": ("make the background green", "--reference", reference),
        "shape": ("turn it into a star", "--reference", reference),
        "place": ("move it to the top left", "--reference", reference),
        "size": ("make it smaller", "--reference", reference),
        "crescent": ("a large yellow crescent on a purple background", "--lora", f"{shapes}-crescent"),
    }
    return [
        Scene(f"{family}-{name}", (*scenes[name], "--model", shapes, "--seed", "7")) for name in _SCENES[family]
    ]


def all_scenes() -> list[list[Scene]]:
    """List the scenes of each family: the rows of the contact sheet."""
    return [scenes_of(family) for family in _SCENES]


def draw_inputs() -> None:
    """Draw the inputs of the scenes: a framed white mask, a triangle, the contours of a cross, a square."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rectangle((4, 4, SIDE - 5, SIDE - 5), fill=255)
    mask.save(FOLDER / "mask.png")
    silhouette = Image.new("RGB", (SIDE, SIDE), "black")
    ImageDraw.Draw(silhouette).polygon([(32, 10), (54, 50), (10, 50)], fill="white")
    silhouette.save(FOLDER / "silhouette.png")
    contours = Image.new("RGB", (SIDE, SIDE), "black")
    cross = [(25, 10), (39, 10), (39, 25), (54, 25), (54, 39), (39, 39)]
    cross += [(SIDE - x, SIDE - y) for x, y in cross]
    ImageDraw.Draw(contours).polygon(cross, outline="white")
    contours.save(FOLDER / "contours.png")
    reference = Image.new("RGB", (SIDE, SIDE), (40, 70, 220))
    ImageDraw.Draw(reference).rectangle((18, 18, 45, 45), fill=(220, 35, 35))
    reference.save(FOLDER / "reference.png")


@contextmanager
def service(data: Path) -> Iterator[str]:
    """Run `darkroom up` on a free port and yield its URL; stops it afterwards."""
    command = [sys.executable, "-m", "cli.main", "up", "--port", "0", "--data", str(data)]
    # The shapes models are too small for a second thread to help.
    environment = {"DARKROOM_WORKER_CPU_THREADS": "1", **os.environ}
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, env=environment
        )
    try:
        yield url_of(process.stdout or ())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def url_of(lines: Iterable[str]) -> str:
    """The URL of a service that is ready, from what `darkroom up` prints until then.

    Raises:
        ServiceError: it stopped, or its default model cannot be loaded.
    """
    for line in lines:
        if line.startswith("ready "):
            return line.split()[1]
        if line.startswith("failed "):
            reason = line.partition(": ")[2].strip()
            raise ServiceError(f"{reason}\n{LOG} has the details")
    raise ServiceError(f"the service stopped before it was ready; {LOG} says why")


def contact_sheet(rows: list[list[Scene]]) -> Path:
    """Write all images on one sheet, enlarged, each with its prompt."""
    scale, gap, text_height = 3, 14, 32
    tile = SIDE * scale
    size = (gap + max(map(len, rows)) * (tile + gap), gap + len(rows) * (tile + text_height + gap))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for row, scenes in enumerate(rows):
        for column, scene in enumerate(scenes):
            left, top = gap + column * (tile + gap), gap + row * (tile + text_height + gap)
            with Image.open(scene.path) as image:
                sheet.paste(image.convert("RGB").resize((tile, tile), Image.Resampling.NEAREST), (left, top))
            caption = f"{scene.name}\n{scene.words[0].removesuffix(' background')}"
            pen.text((left, top + tile + 3), caption, fill="black", font=font, spacing=1)
    path = FOLDER / "contact-sheet.png"
    sheet.save(path)
    return path


def make_all(scenes: list[Scene], url: str, bar: tqdm[None]) -> None:
    """Generate the images one after the other, as `darkroom generate` does; the bar counts them in steps."""
    with Client(url) as client:
        for number, scene in enumerate(scenes):
            arguments = build_parser().parse_args(["generate", *scene.words])
            bar.set_description_str(f"{scene.name:17}")

            def show(job: Json, done: int = number) -> None:
                progress = job.get("progress") or {}
                if progress.get("steps"):
                    bar.update(done + progress["step"] / progress["steps"] - bar.n)

            task, body = compose(arguments)
            job = require_completed(client.wait(client.submit(task, body)["id"], show))
            save(client, job, scene.path, force=True)
            bar.update(number + 1 - bar.n)


def describe_result(sheet: Path, images: int, seconds: float) -> str:
    """What was made, where it is, and what to do next."""
    return f"""
{images} images by the small models of this repository, made through HTTP in {seconds:.0f} s.
All of them on one sheet:  {sheet}
The service's log:         {LOG}

What next:
  .venv/bin/darkroom up                                 run the service: a page, and an API for programs
  .venv/bin/darkroom generate "a red circle on a blue background"
                                                        make an image with it, in another terminal
  README.md                                             your own checkpoints, from a folder or a hub
"""


def main() -> int:
    """Run the demo and return the exit status."""
    FOLDER.mkdir(exist_ok=True)
    draw_inputs()
    rows = all_scenes()
    scenes = [scene for row in rows for scene in row]
    bar_format = "{desc} {bar} {n:.0f}/{total} images, {elapsed}"
    started_at = time.monotonic()
    try:
        with (
            tqdm(total=len(scenes), desc="starting service ", bar_format=bar_format, disable=None) as bar,
            tempfile.TemporaryDirectory(prefix="darkroom-demo-") as data,
            service(Path(data)) as url,
        ):
            make_all(scenes, url, bar)
            bar.set_description_str("stopping service ")
    except ServiceError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(describe_result(contact_sheet(rows), len(scenes), time.monotonic() - started_at))
    return 0


if __name__ == "__main__":
    sys.exit(main())
