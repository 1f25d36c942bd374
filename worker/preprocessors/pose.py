"""Joints of a person, as VitPose of transformers (5.23) finds them; what needs SciPy there is done here.

The whole image counts as the person's box: no detector looks for people.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers.models.vitpose.image_processing_pil_vitpose import (
    box_to_center_and_scale,
    get_keypoint_predictions,
    get_warp_matrix,
    transform_preds,
)

from contracts.catalogue.rows.networks import CONFIDENCE
from contracts.errors import CatalogueError
from worker.networks.images import Pixels, require_finite
from worker.preprocessors.loading import Prepared
from worker.preprocessors.openpose import draw_person

_Values = npt.NDArray[np.float64]
#: The filter that smooths heatmaps before their peaks are refined (Zhang et al., arXiv 1910.06278), as in
#: transformers: a Gaussian of this deviation in pixels, cut off at this radius.
_DEVIATION, _RADIUS = 0.8, 5
#: Bounds of a heatmap's values before their logarithm.
_LEAST, _MOST = 0.001, 50
#: The data set, COCO, whose joints are drawn, of those that a model with experts was trained on.
_COCO = 0


def prepare(processor: Any, image: Image.Image) -> Any:
    """What the model is given: the image in its size, with a margin.

    Raises:
        CatalogueError: the folder's processor is not that of a VitPose.
    """
    size = dict(processor.size)
    if not hasattr(processor, "do_affine_transform") or {"height", "width"} - size.keys():
        raise CatalogueError("its preprocessor_config.json is not that of a VitPose")
    width, height = int(size["width"]), int(size["height"])
    center, scale = _box(image.size, (width, height))
    matrix = get_warp_matrix(0, center * 2.0, np.array((width, height)) - 1.0, scale * 200.0)
    rows = _sampling(height, image.height, matrix[1, 1], matrix[1, 2])
    columns = _sampling(width, image.width, matrix[0, 0], matrix[0, 2])
    warped = np.einsum("yv,vuc,xu->yxc", rows, np.asarray(image, np.float64), columns, optimize=True)
    pixels = np.floor(warped + 0.5).astype(np.uint8)
    whole = [[[0.0, 0.0, float(width), float(height)]]]
    return processor(images=pixels, boxes=whole, do_affine_transform=False, return_tensors="pt")


def pose_map(image: Prepared) -> Pixels:
    """A person's limbs and joints on black, (height, width, 3); raises as `find_joints`."""
    return draw_person(find_joints(image), image.size)


def find_joints(image: Prepared) -> list[tuple[float, float] | None]:
    """The places of COCO's 17 joints in an image, x and y in pixels; None: not found, or outside of it.

    Raises:
        JobFailed: the output is not finite.
    """
    model, given, size = image.model, image.given, image.size
    experts = {}
    if model.config.backbone_config.num_experts > 1:
        experts["dataset_index"] = torch.tensor([_COCO], device=model.device)
    with torch.inference_mode():
        heatmaps = model(**given.to(model.device), **experts).heatmaps
    require_finite(heatmaps, "preprocessor")
    maps: _Values = heatmaps.cpu().numpy()
    places, scores = get_keypoint_predictions(maps)
    refined = np.stack([_refine(one, place) for one, place in zip(maps[0], places[0], strict=True)])
    height, width = given["pixel_values"].shape[-2:]
    center, scale = _box(size, (int(width), int(height)))
    found = transform_preds(refined, center, scale, np.array(maps.shape[-2:]))
    known = (scores[0, :, 0] >= image.options[CONFIDENCE.id]) & ((found >= 0) & (found < size)).all(axis=1)
    return [(float(x), float(y)) if is_known else None for (x, y), is_known in zip(found, known, strict=True)]


def _box(image: tuple[int, int], given: tuple[int, int]) -> Any:
    """Center and scale of the whole image as a box, of the model's aspect."""
    return box_to_center_and_scale((0, 0, *image), image_width=given[0], image_height=given[1])


def _sampling(count: int, length: int, scale: float, offset: float) -> _Values:
    """Weights (count, length) that sample one axis of an image linearly; zeros outside of it.

    Args:
        count: positions; position p lies at (p − offset) / scale of the axis.
        length: of the axis, in pixels.
    """
    places = (np.arange(count) - float(offset)) / float(scale)
    distances = np.abs(places[:, None] - np.arange(length))
    inside = (places >= 0) & (places <= length - 1)
    weights: _Values = np.clip(1 - distances, 0, None) * inside[:, None]
    return weights


def _refine(heatmap: _Values, place: _Values) -> _Values:
    """Move a heatmap's peak (x, y) to the top of the parabola through its neighbors' logarithms.

    It stays where it is if they have no such top.
    """
    logarithms = np.pad(np.log(np.clip(_smooth(heatmap), _LEAST, _MOST)), 1, mode="edge")
    x, y = (int(value) + 1 for value in place)
    if x < 1 or y < 1:  # no peak: all values are negative
        return place
    near = logarithms[y - 1 : y + 2, x - 1 : x + 2]
    slope = np.array([near[1, 2] - near[1, 0], near[2, 1] - near[0, 1]]) / 2
    mixed = (near[2, 2] - near[1, 2] - near[2, 1] + 2 * near[1, 1] - near[1, 0] - near[0, 1] + near[0, 0]) / 2
    curvature = np.array(
        [
            [near[1, 2] - 2 * near[1, 1] + near[1, 0], mixed],
            [mixed, near[2, 1] - 2 * near[1, 1] + near[0, 1]],
        ]
    ) + np.finfo(np.float32).eps * np.eye(2)
    if np.linalg.det(curvature) == 0:
        return place
    refined: _Values = place - np.linalg.solve(curvature, slope)
    return refined if np.isfinite(refined).all() else place


def _smooth(heatmap: _Values) -> _Values:
    """A heatmap, smoothed; beyond its edges it goes on as its mirror image."""
    positions = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-0.5 * (positions / _DEVIATION) ** 2)
    weights /= weights.sum()
    smooth = np.pad(heatmap, _RADIUS, mode="symmetric")
    for axis in (0, 1):
        smooth = np.apply_along_axis(lambda line: np.convolve(line, weights, mode="valid"), axis, smooth)
    return smooth
