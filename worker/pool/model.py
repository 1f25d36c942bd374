"""One loaded model: components shared by all its tasks, ControlNets, adapters, placement and kernels.

Each call gets a new pipeline and scheduler; only the weights are shared. Knows no other model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch

from contracts.catalogue.families import Mode
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.memory.plan import Placement, Plan
from contracts.memory.sizes.component import ModelComponents
from contracts.requests.entry_parameters import ControlParameters
from contracts.requests.parameters import JobParameters
from contracts.weights.checkpoint_limits import tasks_of_channels
from worker.adapters.cache import AdapterSet, LoraCache
from worker.adapters.inversions import read_inversions
from worker.adapters.lora_slots import LoraSlots
from worker.checkpoints.sliced import loaders_sliced
from worker.encoding.encoder import PromptEncoder
from worker.families import DiffusersFamily, get_family
from worker.families.inputs import GenerationInputs
from worker.offload.placement import ComponentPlacement
from worker.pool.context import PoolContext
from worker.pool.graph_limits import why_no_graphs, why_not_whole
from worker.pool.loading.checkpoint import describe_weights, load_pipeline
from worker.pool.loading.controlnets import LoadedControlNets
from worker.pool.loading.loaded_components import components_of
from worker.pool.loading.vaes import LoadedVaes, upcasts
from worker.pool.pipelines import View, as_it_is, computing_on, derive
from worker.pool.prompt_encoders import PromptEncoders
from worker.runtime import slices
from worker.runtime.device import pick_dtype
from worker.runtime.diffusers_caching import cache_introspection
from worker.runtime.kernels import Kernels
from worker.sampling import previews
from worker.sampling.schedulers import make_scheduler


class LoadedModel:
    """One model in memory.

    Attributes:
        base: the text-to-image pipeline that holds the components; jobs run on derived ones.
        denoiser: the component that runs at every step.
        weights: id and content hash for receipts.
        placement: where its components are.
        controlnets: that are loaded beside it.
        vaes: of the catalogue, that may take the place of its own or make previews.
        encoders: its text encoders, for jobs and for prompts that wait.
        kernels: how it is computed.
        fp8: whether its denoiser is stored in 8 bits, for as long as it is loaded.
    """

    def __init__(self, spec: ModelSpec, path: Path, context: PoolContext, plan: Plan) -> None:
        """Load the plan's components from `path` into host memory; nothing is on the device yet."""
        self.spec = spec
        self.family: DiffusersFamily = get_family(spec.family_spec.id)
        self.device = context.device
        self.dtype = pick_dtype(spec, context.device)
        self.fp8 = plan.fp8
        self._context = context
        self.weights = describe_weights(spec, path, context)
        self.base = load_pipeline(spec, path, context, plan)
        # Kept, since diffusers' `components` reads a signature each time it is asked.
        self.denoiser: Any = self.base.components[self.family.denoiser]
        if plan.fp8:
            with loaders_sliced():
                self.denoiser.enable_layerwise_casting(torch.float8_e4m3fn, compute_dtype=self.dtype)
        modules = {name: part for name, part in self.base.components.items() if _is_module(part)}
        self.kernels = Kernels(context.kernels, spec.id, context.graph_pool)
        self.kernels.set_memory_format(modules)
        self.kernels.compile(
            self.denoiser,
            self.family.repeated_blocks,
            refused=self._why_uncompiled(),
            not_whole=why_not_whole(spec),
        )
        slots, rank = context.kernels.lora_slots, context.kernels.slot_rank
        self._slots = LoraSlots(self.kernels.compiled, context.device, slots, rank)
        self.forget_adapters()
        self.placement = ComponentPlacement(modules, context.device, context.memory_tracker, context.weights_lock)
        self.encoders = PromptEncoders(
            self.family,
            self.base,
            self.placement,
            self.device,
            self.dtype,
            context.embeddings,
            " ".join([self.weights.sha256, *map("=".join, self.weights.text_encoder_quantization.items())]),
            context.weights_lock,
            context.encodes_ahead,
        )
        self.controlnets = LoadedControlNets(
            self.family, self.denoiser, context.catalogue, context.lora_files, context.weights_lock
        )
        vae = None if self.family.vae is None else modules[self.family.vae]
        self.vaes = LoadedVaes(vae, context.lora_files.places, context.hasher)
        self._schedulers: dict[str, Any] = {}
        if vae is not None:
            cache_introspection(vae)
        cache_introspection(self.denoiser, signatures=context.kernels.compile == "off")

    def _why_uncompiled(self) -> str:
        """Return why the denoiser is not compiled whatever the settings say; empty: it may be."""
        if self.fp8:
            return "denoiser in fp8"
        return "weights are quantized" if self.weights.quantization else ""

    @property
    def on_host(self) -> bool:
        """Whether it is in host memory and must be placed before it can run."""
        return self.placement.plan is None

    @property
    def resident_bytes(self) -> int:
        """Weights that stay on the device, adapters included."""
        return self.placement.resident_bytes + self.adapters.resident_bytes + self._slots.size_bytes

    def bytes_beside(self, plan: Plan) -> int:
        """Bytes of loaded LoRAs, and of their slots where the plan does not count them."""
        return self.adapters.resident_bytes + self._slots.size_bytes * (not plan.has_lora_slots)

    def move_to_host(self) -> None:
        """Move it to host memory; adapters are dropped, and read again when a job names them."""
        self.forget_adapters()
        self.placement.move_to_host()

    def forget_adapters(self) -> None:
        """Drop all adapters and free their memory."""
        self._slots.release()
        self.adapters = LoraCache(self.base, self.family, self._context.lora_files, self.spec.id, self._slots)

    def with_inversions(self, adapters: AdapterSet, job: JobParameters) -> AdapterSet:
        """Return a job's adapters with its textual inversions.

        Raises:
            JobFailed, NotPrepared, Unavailable: as `read_inversions`.
        """
        found = read_inversions(self.base, self.spec.family_spec, job, self._context.lora_files)
        return replace(adapters, inversions=found)

    def with_image_prompts(self, adapters: AdapterSet, inputs: GenerationInputs) -> AdapterSet:
        """Return a job's adapters with its reference images, ready to act.

        Raises:
            JobFailed: an IP-Adapter or its image encoder cannot be used.
        """
        return replace(adapters, image_prompts=self._context.ip_adapters.read(self, inputs))

    def report(self) -> dict[str, Any]:
        """Its memory and plan, as the fields of a `ModelReport`."""
        plan = self.placement.plan
        return {
            "plan": "" if plan is None else plan.name,
            "planned_bytes": None if plan is None else plan.peak_bytes,
            "resident_bytes": self.resident_bytes,
            "host_bytes": self.placement.host_bytes,
            "kernels": self.kernels.used,
        }

    def serves(self, plan: Plan) -> bool:
        """Whether all components of a plan are loaded, in the plan's dtype."""
        needed = {name for name, placement in plan.placements.items() if placement is not Placement.SKIPPED}
        return needed & set(self.base.components) <= set(self.placement.names) and plan.fp8 == self.fp8

    def load_controlnet(self, control: ControlParameters, path: Path) -> None:
        """Load a ControlNet into host memory; nothing where it is loaded already."""

        def add(name: str, module: Any) -> None:
            self.kernels.set_memory_format({name: module})
            cache_introspection(module)
            self.placement.add(f"controlnet:{name}", module)

        self.controlnets.load(control, path, self.dtype, add)

    def drop_uploaded(self, in_use: Sequence[ControlParameters]) -> None:
        """Drop uploaded ControlNets, but for those that jobs in flight use and the last ones used."""
        for name in self.controlnets.drop_uploaded(in_use):
            self.placement.remove(f"controlnet:{name}")

    def load_vae(self, name: str, place: Path) -> None:
        """Load a VAE of the catalogue into host memory, as this component; nothing where it is loaded already."""

        def add(module: Any) -> None:
            self.kernels.set_memory_format({name: module})
            cache_introspection(module)
            self.placement.add(name, module)

        with slices.holding(self._context.weights_lock), loaders_sliced():
            self.vaes.load(name, place, self.dtype, add)

    def runs_denoiser_layers(self, module: torch.nn.Module) -> bool:
        """Whether a module is the denoiser, or a ControlNet that shares layers with it."""
        shares = self.family.shares_layers and self.controlnets.has(module)
        return shares or module is self.denoiser

    def pipeline(
        self,
        mode: Mode,
        scheduler: str,
        controlnets: Sequence[str] = (),
        view: View = as_it_is,
        vae: str | None = None,
        settings: Mapping[str, object] = MappingProxyType({}),
    ) -> Any:
        """Build a job's pipeline on the shared components, with its own scheduler; it takes embeddings only.

        Args:
            vae: id of the one that takes the place of the model's own.
            view: returns what takes a module's place in it: (module, names of the entries that are called).
            settings: entries of the scheduler's configuration that the job changes.
        """
        self._check_mode(mode)
        extra: dict[str, Any] = {name: None for name in self.base.components if name.startswith("text_encoder")}
        extra["scheduler"] = self._scheduler(scheduler)
        if settings:
            extra["scheduler"].register_to_config(**settings)
        extra[self.family.denoiser] = view(self.denoiser, ("__call__",))
        chosen = self.vaes.module(vae)
        if chosen is not None:
            extra["vae"] = chosen if upcasts(chosen) else view(chosen, ("encode", "decode"))
        if controlnets:
            extra["controlnet"] = self.controlnets.combined(controlnets, view)
        class_name = self.controlnets.pipelines(controlnets)[mode]
        pipeline_class = computing_on(self.device, getattr(diffusers, class_name))
        pipeline = derive(pipeline_class, self.base, **extra)
        pipeline.set_progress_bar_config(disable=True)
        self.family.patch(pipeline)
        return pipeline

    def _check_mode(self, mode: Mode) -> None:
        """Refuse what this checkpoint's weights cannot run, where the API did not know them."""
        vae = self.vaes.module(None)
        if self.family.denoiser != "unet" or vae is None:
            return
        tasks = tasks_of_channels(self.denoiser.config.in_channels, vae.config.latent_channels)
        if tasks and mode not in [Mode(task.value) for task in tasks]:
            message = f"{self.spec.id} runs only {', '.join(tasks)}: its weights are not made for {mode}"
            raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message)

    def _scheduler(self, name: str) -> Any:
        """Copy a scheduler that has never run, in a fifth of the time that building one takes."""
        if name not in self._schedulers:
            own = self.base.scheduler
            self._schedulers[name] = make_scheduler(name, {**own.config, "_class_name": type(own).__name__})
        return copy.deepcopy(self._schedulers[name])

    def encoder(self, adapters: AdapterSet, owner: str) -> PromptEncoder:
        """The text encoders for a job with these adapters, of this owner."""
        return self.encoders.for_job(adapters, self.adapters.active_in_text_encoders, owner)

    def compiled(self, graph_bytes: int | None = None) -> AbstractContextManager[None]:
        """Inside, the denoiser or its blocks run compiled as far as they can be now.

        Args:
            graph_bytes: activations of the call, which CUDA graphs keep; None: the plan has no room for that.
        """
        is_streamed = self.placement.placement_of(self.family.denoiser) is Placement.STREAMED
        return self.kernels.running(
            uncompiled="denoiser streamed" if is_streamed else self.adapters.uncompiled,
            no_graphs=why_no_graphs(self.placement, self.family.denoiser, graph_bytes),
            not_whole="adapters act outside of its blocks" if self.adapters.acts_by_hooks else "",
            variant=self._slots.rows_told,
            graph_bytes=graph_bytes or 0,
        )

    @cached_property
    def projection(self) -> previews.Projection:
        """From latents to the colours of a preview; fitted when the first preview is asked for."""
        vae = self.vaes.module(None)
        return previews.projection_of_pixels(self.device) if vae is None else previews.fit_projection(vae)

    def locations(self, controlnets: Sequence[str] | None = None, vaes: Sequence[str] = ()) -> dict[str, str]:
        """Component -> where it is, with these VAEs of the catalogue and the named ControlNets, or all loaded."""
        extras = ("controlnet:", "vae:", "preview_vae:")
        own = [name for name in self.placement.names if not name.startswith(extras) or name in vaes]
        named = self.controlnets.names if controlnets is None else list(dict.fromkeys(controlnets))
        return self.placement.locations([*own, *(f"controlnet:{id}" for id in named)])

    def components(self) -> ModelComponents:
        """The loaded components, for a checkpoint whose files did not tell them."""
        return components_of(self.base, self.spec, self.dtype)


def _is_module(part: object) -> bool:
    return isinstance(part, torch.nn.Module)
