"""A checkpoint's pipeline as a plan wants it, and its weights as receipts name them. Knows no other model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.receipt import Weights
from contracts.memory.plan import Placement, Plan
from worker.checkpoints import loader as checkpoints
from worker.checkpoints.sliced import loaders_sliced
from worker.checkpoints.sources import weights_beside
from worker.families import get_family
from worker.pool.context import PoolContext
from worker.pool.pipelines import computing_on
from worker.runtime import slices
from worker.runtime.device import pick_dtype


def describe_weights(spec: ModelSpec, path: Path, context: PoolContext) -> Weights:
    """Return the id and content hash of a row's weights, and what loading changes of them."""
    stored_as = get_family(spec.checkpoint_family.id)
    beside = weights_beside(context.catalogue, spec, stored_as, path)
    weights = context.lora_files.places.weights(spec.id, context.hasher.hash(path, spec.variant, beside))
    encoders = checkpoints.read_encoder_quantization(context.catalogue, spec, stored_as, path)
    changes = {
        "quantization": checkpoints.read_quantization(spec, path),
        "text_encoder_quantization": encoders,
        "control_lora_scale": None if spec.control_lora is None else spec.control_lora.scale,
    }
    return weights.model_copy(update=changes)


def load_pipeline(spec: ModelSpec, path: Path, context: PoolContext, plan: Plan) -> Any:
    """Load the components that a plan does not skip into host memory; returns the pipeline that holds them.

    Raises:
        CatalogueError, Exception: as `worker.checkpoints.loader.load_model`.
    """
    stored_as, dtype = get_family(spec.checkpoint_family.id), pick_dtype(spec, context.device)
    skipped = {name for name, placement in plan.placements.items() if placement is Placement.SKIPPED}
    with slices.holding(context.weights_lock), loaders_sliced():
        pipeline = checkpoints.load_model(context.catalogue, spec, stored_as, path, dtype, skipped)
    pipeline_class: Any = type(pipeline)
    pipeline.__class__ = computing_on(context.device, pipeline_class)
    return pipeline
