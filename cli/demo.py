"""`make demo`: starts the service, makes one image by each task through HTTP, and shows what came out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cli.client import Client, ServiceError
from cli.generate import compose, follow, save
from cli.main import build_parser

FOLDER = Path("demo")
SIDE = 64


@dataclass(frozen=True)
class Scene:
    """One image of the demo: its file's name, and the words after `darkroom generate`."""

    name: str
    words: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where the image is written."""
        return FOLDER / f"{self.name}.png"

    @property
    def caption(self) -> str:
        """What was asked, for a person."""
        return f"{self.name}: {self.words[0]}"


def scenes() -> list[Scene]:
    """One scene a task; the later ones start from the first one's image, and from two drawings."""
    first = str(FOLDER / "txt2img.png")
    mask, star = str(FOLDER / "mask.png"), str(FOLDER / "silhouette.png")
    return [
        Scene("txt2img", ("a red circle on a blue background", "--seed", "7")),
        Scene(
            "img2img",
            ("a yellow circle on a green background", "--seed", "7", "--image", first, "--strength", "0.8"),
        ),
        Scene(
            "inpaint",
            (
                "a red circle on a white background",
                "--seed",
                "7",
                "--image",
                first,
                "--mask",
                mask,
                "--strength",
                "1",
            ),
        ),
        Scene(
            "controlnet",
            ("a yellow star on a purple background", "--seed", "7", "--control", f"shapes-sdxl-silhouette={star}"),
        ),
    ]


def draw_inputs() -> None:
    """The mask (left half white) and the silhouette (a triangle) that the scenes name."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, SIDE // 2 - 1, SIDE - 1), fill=255)
    mask.save(FOLDER / "mask.png")
    silhouette = Image.new("RGB", (SIDE, SIDE), "black")
    ImageDraw.Draw(silhouette).polygon([(32, 10), (54, 50), (10, 50)], fill="white")
    silhouette.save(FOLDER / "silhouette.png")


@contextmanager
def service(data: Path) -> Iterator[str]:
    """`darkroom up` on a free port; gives its URL, and stops it at the end."""
    command = [sys.executable, "-m", "cli.main", "up", "--port", "0", "--data", str(data)]
    # The shapes models are too small for a second thread to help.
    environment = {"DARKROOM_WORKER_CPU_THREADS": "1", **os.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    try:
        for line in process.stdout or ():
            if line.startswith("ready "):
                yield line.split()[1]
                return
        raise ServiceError("the service ended before it was ready")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def contact_sheet(made: list[Scene]) -> Path:
    """All images side by side, enlarged, each with what was asked."""
    scale, gap, text_height = 4, 12, 28
    tile = SIDE * scale
    sheet = Image.new("RGB", (gap + len(made) * (tile + gap), gap + tile + text_height + gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for index, scene in enumerate(made):
        left = gap + index * (tile + gap)
        with Image.open(scene.path) as image:
            sheet.paste(image.convert("RGB").resize((tile, tile), Image.Resampling.NEAREST), (left, gap))
        pen.text((left, gap + tile + 4), f"{scene.name}\n{scene.words[0]}", fill="black", font=font, spacing=1)
    path = FOLDER / "sheet.png"
    sheet.save(path)
    return path


def main() -> int:
    """Run the demo; returns the exit status."""
    FOLDER.mkdir(exist_ok=True)
    draw_inputs()
    os.environ["DARKROOM_PROGRESS"] = "1"
    parser = build_parser()
    try:
        with tempfile.TemporaryDirectory(prefix="darkroom-demo-") as data, service(Path(data)) as url:
            print(f"the service runs at {url}")
            for scene in scenes():
                words = ["generate", *scene.words, "--server", url, "--output", str(scene.path)]
                arguments = parser.parse_args(words)
                task, body = compose(arguments)
                with Client(url) as client:
                    job = follow(client, client.submit(task, body), label=f"{scene.name:10}")
                    save(client, job, arguments.output)
    except ServiceError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    for scene in scenes():
        print(f"{scene.path}  {scene.caption}")
    print(f"{contact_sheet(scenes())}  all of them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
