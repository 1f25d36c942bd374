"""What a job costs a worker, predicted from what was measured of earlier jobs. Pure.

A call of the denoiser takes `call_seconds + image_seconds × images`, whichever jobs the images belong to. What an
image takes in a joined call and in one of its own tells both apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Relative uncertainty of what is predicted from jobs like this one, from the model's jobs of other sizes, and
#: from other models' jobs: the end is expected between the estimate times and divided by `1 - spread`.
SPREAD_OF_LIKE, SPREAD_OF_MODEL, SPREAD_OF_OTHERS = 0.25, 0.5, 0.9
#: Seconds for one step of one megapixel of an image, where no job has ever been measured.
UNMEASURED_PACE = 0.1
#: Weight of the assumption that a further image costs as much as the call itself, beside what was measured.
_PRIOR_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class JobCost:
    """Predicted costs of a job from its beginning.

    Attributes:
        own_seconds: of what no other job shares: encoding, decoding.
        steps: of denoising.
        images: in each of its calls.
        call_seconds, image_seconds: of a call of the denoiser, and of each image in it.
        image_rows: rows of an image in a call: 2 with guidance.
        spread: relative uncertainty; None: nothing was measured that this could be predicted from.
        mean_seconds: of the whole job at the pace of the last jobs, which may have shared their calls.
    """

    own_seconds: float
    steps: int
    images: int
    call_seconds: float
    image_seconds: float
    image_rows: float
    spread: float | None
    mean_seconds: float

    @property
    def step_seconds(self) -> float:
        """Of one step, made alone."""
        return self.call_seconds + self.image_seconds * self.images

    @property
    def alone_seconds(self) -> float:
        """Of the whole job, made alone."""
        return self.own_seconds + self.steps * self.step_seconds


@dataclass(frozen=True)
class Measurements:
    """Measurements of earlier jobs.

    Attributes:
        paces: pace key -> seconds per image and step, a moving average (`IMAGE_PACE`).
        models: model -> seconds and megapixel-steps of its recent jobs.
        calls: pace key -> sums over recent jobs, as `learn_costs` of accounts.lua writes them.
        loads: model -> seconds that it takes to load.
        all_models: seconds and megapixel-steps of the recent jobs of all models.
    """

    paces: Mapping[str, float]
    models: Mapping[str, tuple[float, float]]
    calls: Mapping[str, Mapping[str, float]]
    loads: Mapping[str, float]
    all_models: tuple[float, float]

    def load_seconds(self, model: str) -> float:
        """Of a model that is on no device: as measured, or else as the other models take on average."""
        if model in self.loads:
            return self.loads[model]
        return sum(self.loads.values()) / len(self.loads) if self.loads else 0.0

    def cost_of(self, work: object) -> JobCost:
        """The cost of a job with this `work` (`TaskParameters.work`, as JSON)."""
        found = read_object(work)
        pace_key, model = str(found.get("pace", "")), str(found.get("model", ""))
        image_steps, megapixel_steps = _number(found, "image_steps"), _number(found, "megapixel_steps")
        images = max(1, int(_number(found, "images") or 1))
        steps = max(0, round(image_steps / images))
        calls = self.calls.get(pace_key)
        pace, spread = self._pace(pace_key, model, megapixel_steps / image_steps if image_steps else 0.0)
        call_seconds, image_seconds = (0.0, pace) if calls is None else _split(calls)
        own_seconds = 0.0 if calls is None else calls.get("own", 0.0)
        return JobCost(
            own_seconds=own_seconds,
            steps=steps,
            images=images,
            call_seconds=call_seconds,
            image_seconds=image_seconds,
            image_rows=1.0 if calls is None else max(1.0, calls.get("rows", 1.0)),
            spread=spread,
            mean_seconds=own_seconds + image_steps * pace,
        )

    def _pace(self, pace_key: str, model: str, megapixels: float) -> tuple[float, float | None]:
        """Seconds per image and step, and their relative uncertainty."""
        if pace_key in self.paces:
            return self.paces[pace_key], SPREAD_OF_LIKE
        for (seconds, megapixel_steps), spread in (
            (self.models.get(model, (0.0, 0.0)), SPREAD_OF_MODEL),
            (self.all_models, SPREAD_OF_OTHERS),
        ):
            if megapixel_steps > 0:
                return seconds / megapixel_steps * megapixels, spread
        return UNMEASURED_PACE * megapixels, None


def read_object(text: object) -> Mapping[str, Any]:
    """The object in some JSON of a record; empty where another release has written something else, or nothing."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _split(calls: Mapping[str, float]) -> tuple[float, float]:
    """Seconds of a call, and of each image in it: a line through what an image took, by 1 / images."""
    number = calls["n"]
    inverse_images, seconds = calls["x"] / number, calls["y"] / number
    variance = max(0.0, calls["xx"] / number - inverse_images**2) * number
    covariance = calls["xy"] - number * inverse_images * seconds
    assumed = seconds / (1 + inverse_images)
    call_seconds = (covariance + _PRIOR_WEIGHT * assumed) / (variance + _PRIOR_WEIGHT)
    call_seconds = min(max(call_seconds, 0.0), 0.95 * seconds / inverse_images)
    return call_seconds, seconds - call_seconds * inverse_images
