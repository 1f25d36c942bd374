"""The models that are ready to run on one device, each placed by the plan of the next call.

Selects a plan first, then loads no more than it holds; `eviction.py` decides which model leaves. Of jobs it knows
only their parameters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.plan import Plan
from contracts.memory.policy import Policy
from contracts.metrics import Counters
from contracts.requests.parameters import JobParameters
from worker.adapters.files import LoraFiles
from worker.adapters.references.ip_adapters import IpAdapters
from worker.checkpoints.places import PreparationWatch, Unwatched
from worker.encoding.cache import EmbeddingCache
from worker.encoding.encoder import PromptEncoder
from worker.offload import offloaded_module
from worker.pool.call_history import CallHistory
from worker.pool.context import PoolContext
from worker.pool.eviction import ModelCache
from worker.pool.loading.fetcher import ModelFetcher, load_errors_as_job_failed
from worker.pool.loading.loader import Meanwhile, ModelLoader
from worker.pool.model import LoadedModel
from worker.pool.placer import ModelPlacer
from worker.pool.plan_selector import PlanSelector
from worker.pool.prompts_ahead import PromptsAhead
from worker.runtime import device as devices
from worker.runtime.device import describe_device, pick_device, pick_dtype
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.kernels import check_compiler
from worker.runtime.memory_tracker import MemoryTracker

#: What a job keeps between its calls, unless its image is very large: FLUX's embeddings take 4 MB.
_KEPT_BYTES = 2**23
#: Share of an enforced budget that plans may fill, since they are estimates.
PLANNED_SHARE = 0.95


class Pool:
    """Models that are ready to run on one device.

    Attributes:
        plan_selector: chooses the plan of each call.
        memory_tracker: what the running call takes of the device's memory.
        prompts_ahead: encodes prompts of waiting jobs where T5 is on the CPU.
        fetcher: prepares and measures files before they are loaded.
        kept_bytes: of the device, beside weights, that jobs in flight keep while others are served.
        reserved_bytes: those of `kept_bytes` that jobs keep which hold no model of the pool.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        device: str = "auto",
        max_models: int = 3,
        embedding_bytes: int = 2**28,
        budget_bytes: int | None = None,
        host_bytes: int = 0,
        policy: Policy | None = None,
        counters: Counters | None = None,
        lora_files: LoraFiles | None = None,
        encodes_ahead: bool = False,
        kernels: KernelOptions | None = None,
    ) -> None:
        """Create an empty pool.

        Args:
            max_models: on the device at once, whatever their bytes.
            embedding_bytes: of host memory for the embeddings of prompts.
            budget_bytes: of the device; they are enforced. None: what the device has.
            host_bytes: of host memory for models that had to leave the device.
            encodes_ahead: whether `prompts_ahead` may do anything.
        """
        self.catalogue = catalogue
        self.device = pick_device(device)
        devices.select_device(self.device)
        self.embeddings = EmbeddingCache(embedding_bytes)
        self.memory_tracker = MemoryTracker(self.device, budget_bytes)
        size_bytes = int(budget_bytes * PLANNED_SHARE) if budget_bytes else devices.usable_bytes(self.device)
        self._size_bytes = size_bytes
        self.kept_bytes = self.reserved_bytes = 0
        self._history = CallHistory()
        cudnn, cpu_bytes = self.device.type == "cuda", 2 if offloaded_module.cpu_has_bfloat16() else 4
        options = check_compiler(kernels or KernelOptions(), self.device)
        policy = replace(
            policy or Policy(),
            cudnn=cudnn,
            cpu_value_bytes=cpu_bytes,
            slot_ranks=options.slot_ranks,
            graphs=options.replays,
        )
        self.plan_selector = PlanSelector(catalogue, size_bytes, self._value_bytes, policy)
        self._counters = counters or Counters()
        self._cache = ModelCache(size_bytes, max_models, host_bytes, self._counters)
        self.prompts_ahead = PromptsAhead(self._cache, self._counters)
        files = lora_files or LoraFiles(catalogue)
        context = PoolContext(
            catalogue,
            self.device,
            files.hasher,
            self.embeddings,
            self.memory_tracker,
            files,
            IpAdapters(catalogue, files),
            options,
            encodes_ahead,
        )
        self.fetcher = ModelFetcher(catalogue, self.plan_selector, files.hasher, files.places)
        self._loader = ModelLoader(context, self.fetcher, self._cache, self.plan_selector, self._counters)
        self._graph_pool = context.graph_pool
        self._placer = ModelPlacer(self._cache, self._loader, size_bytes, self._counters, self._graph_pool)

    @property
    def warm(self) -> list[str]:
        """Ids of the models that are ready, on the device or in host memory, least recently used first."""
        return list(self._cache.models)

    def prepare(self, name: str, watch: PreparationWatch | None = None) -> None:
        """Download and hash the files of a model, `controlnet:ID` or `lora:ID`, and read them into the page cache;
        thread-safe. Nothing else here opens a connection.

        Raises:
            PreparationDelayed, JobFailed, Cancelled, Exception: as `ModelFetcher.prepare`.
        """
        self.fetcher.prepare(name, watch or Unwatched())

    def rehearse(self, name: str) -> None:
        """Find out by descriptions and headers whether a model or `controlnet:ID` on this machine can be loaded.

        Raises:
            JobFailed: it cannot, and why.
        """
        kind, _, id = name.rpartition(":")
        load_errors_as_job_failed(id if kind else name, lambda: self.fetcher.rehearse(name))

    def model(self, id: str) -> LoadedModel:
        """Return the model, placed for one image of its default size; others may be evicted for it.

        Raises:
            JobFailed: with MODEL_LOAD_FAILED.
            NotPrepared: its files must be downloaded first.
        """
        self._loader.inspect(id)
        return self._placer.place(id, self.plan_selector.default_plan(id), self.kept_bytes)

    def ready(self, job: JobParameters, images: int, meanwhile: Meanwhile | None = None) -> LoadedModel:
        """Return the job's model, placed for a call of so many images, with the ControlNets that the job names.

        Args:
            meanwhile: has others served between the slices of what is loaded; None: they wait until it is done.

        Raises:
            JobFailed: with MODEL_LOAD_FAILED.
            NotPrepared: some of its files must be downloaded first.
            torch.OutOfMemoryError: the device has no room for the weights.
        """
        self._loader.inspect(job.model)
        self._loader.refuse_changed_controls(job)
        controls = list({control.component: control for control in job.controls}.values())
        model = self._cache.find(job.model)
        loaded = () if model is None else model.placement.names
        for control in controls:
            self._loader.inspect_controlnet(control, is_loaded=f"controlnet:{control.component}" in loaded)
        for vae in job.vaes:
            self._loader.inspect_vae(vae)
        calls = self._history.begin(job.model, self.plan_selector.choose(job, images).name)
        situation = self._cache.situation(job.model, calls, self._history.has_model)
        plan = self.plan_selector.choose_in(situation, job, images)
        return self._placer.place(job.model, plan, self.kept_bytes, controls, job.vaes, meanwhile)

    def hold(self, id: str) -> None:
        """A job in flight uses this model: until `release` it may leave the device, but is not dropped."""
        self._cache.in_use[id] += 1

    def release(self, id: str) -> None:
        """End one `hold`."""
        self._cache.in_use -= Counter([id])

    def must_wait(self, job: JobParameters) -> bool:
        """Whether the job's model can be placed only once other jobs in flight have ended."""
        in_use = set(self._cache.in_use)
        if not in_use and not self.reserved_bytes:
            return False
        try:
            if not self.plan_selector.knows(job.model):
                return True  # its file is loaded to learn what is in it
            plan = self.plan_selector.choose(job, job.num_images)
        except CatalogueError:
            return False
        model = self._cache.find(job.model)
        if model is not None and job.model in in_use and not model.serves(plan):
            return True
        beside = self.reserved_bytes + self._graph_pool.beside(plan.graph_bytes)
        return not self._cache.can_make_room(job.model, plan.peak_bytes + beside)

    def needs_loading(self, job: JobParameters) -> bool:
        """Whether something that the job needs is not in memory yet, or just being loaded."""
        model = self._cache.find(job.model)
        if model is None or job.model in self._cache.loading:
            return True
        extras = {*(f"controlnet:{control.component}" for control in job.controls), *job.vaes}
        if not extras.issubset(model.placement.names):
            return True
        try:
            return not model.serves(self.plan_selector.choose(job, job.num_images))
        except CatalogueError:
            return False  # placing it says why

    def has_room_beside(self, plan: Plan) -> bool:
        """Whether one more job could keep its latents and embeddings beside calls by this plan."""
        beside = self.kept_bytes + self._graph_pool.beside(plan.graph_bytes)
        return self._size_bytes - plan.peak_bytes - beside >= _KEPT_BYTES

    @property
    def unused_bytes(self) -> int:
        """Device memory for a job without a model of the pool: everything that jobs in flight do not need."""
        return self._size_bytes - self._beside_models_in_use - self._cache.bytes_in_use

    def evict_idle(self, needed_bytes: int) -> None:
        """Let models leave the device that no job in flight uses, until so many bytes are free beside others."""
        self._cache.evict_idle(needed_bytes + self._beside_models_in_use)

    @property
    def _beside_models_in_use(self) -> int:
        """What jobs and CUDA graphs keep of the device that the plans of models in use do not count."""
        return self.kept_bytes + self._graph_pool.beside(*(plan.graph_bytes for plan in self._cache.plans_in_use))

    def place_again(self, id: str, plan: Plan) -> None:
        """Place a model that a job in flight holds, by the job's plan; others may leave the device for it.

        Raises:
            torch.OutOfMemoryError: the device has no room for the weights.
        """
        self._placer.place(id, plan, self.kept_bytes)

    def images_with_room(self, id: str, plan: Plan) -> int:
        """Images that one call can have by this plan, beside the other models as they are on the device now."""
        others = self._cache.taken_beside(id)
        activations = max(1, plan.activation_bytes // max(1, plan.images))
        beside = others + self.kept_bytes + self._graph_pool.beside(plan.graph_bytes)
        more = (self._size_bytes - plan.peak_bytes - beside) // activations
        return min(plan.batch_images, plan.images + max(0, more))

    def step_down(self, job: JobParameters, images: int) -> str | None:
        """Record that a call like this ran out of memory: the next one gets a smaller plan.

        Returns:
            The name of the plan that was too large; None if no smaller one exists.
        """
        failed = self.plan_selector.step_down(job, images)
        if failed is None:
            return None
        self._counters.count("out_of_memory_steps", model=job.model)
        return failed.name

    def count_look_ups(self, model: LoadedModel, encoder: PromptEncoder) -> None:
        """Count a call's look-ups of embeddings."""
        self._counters.count("embedding_cache_hits", encoder.hits, model=model.spec.id)
        self._counters.count("embedding_cache_misses", encoder.misses, model=model.spec.id)
        self._counters.count("prompts_found_ahead", encoder.cache_use.ahead, model=model.spec.id)

    def take_peak(self, id: str) -> int | None:
        """The most device memory in use since the last time, while this model was served; None: not measured."""
        peak_bytes, retries = self.memory_tracker.take_peak()
        if retries:
            self._counters.count("allocator_retries", retries, model=id)
        return peak_bytes

    def drop(self, id: str) -> None:
        """Remove a model and free its memory."""
        self._cache.drop(id)

    @property
    def resident_bytes(self) -> int:
        """Weights of all models and their adapters on the device."""
        return self._cache.resident_bytes

    def report(self) -> dict[str, Any]:
        """This pool's part of a `WorkerReport`."""
        return {
            "device": describe_device(self.device),
            "budget_bytes": self.plan_selector.size_bytes,
            "capacity": self.plan_selector.capacity,
            **self._cache.report(),
            "embeddings": self.embeddings.report(),
            "ready": self.fetcher.names_here(),
        }

    def _value_bytes(self, spec: ModelSpec) -> int:
        return pick_dtype(spec, self.device).itemsize
