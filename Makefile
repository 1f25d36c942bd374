# Everything a person or the CI does here. What a target needs, it installs into .venv itself.

PYTHON ?= python3
BIN := .venv/bin
# Files go to the processes one by one, the slowest first; each process has a Redis of its own. One process more than
# there are cores, because many tests wait for other processes: workers, which have this priority, too.
PYTEST := nice -n 5 $(BIN)/python -m pytest --numprocesses $$(( $$(nproc) + 1 )) --dist loadfile --no-loadscope-reorder
# Empty is unset: tests start many processes, which must not compile the same modules again and again.
export PYTHONDONTWRITEBYTECODE :=
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo install test clients test-node test-clients test-browser browser docs fuzz lint check chaos sentinel soak audit judge manifest bench containers gpu gpu-check format clean

demo: install  ## run the service, one job of each task, and show the images
	@$(BIN)/python -m cli.demo

install: .venv/installed  ## make .venv with the service in it

test: .venv/installed-dev  ## run all tests, in one process more than there are cores
	$(PYTEST) --durations=10

lint: .venv/installed-dev  ## linters, types, and the static checks of what is deployed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	deploy/check $(BIN)

check: lint  ## linters, types, and the tests that need no model: the quick one
	$(PYTEST) -q tests/test_layers.py tests/test_release.py tests/contracts tests/app tests/dispatcher tests/cli tests/deploy

clients: .venv/installed-dev build/generators/bin/datamodel-codegen  ## pack the Python and the TypeScript client into build/clients; needs PyPI, node, and npm's registry
	$(BIN)/python -m clients.build

test-node: .venv/installed-dev  ## the TypeScript client, the OpenAI package of npm and Vercel's AI SDK against the service, types generated for TypeScript, and signed images read by npm's c2pa; needs node, and npm's registry
	$(BIN)/python -m clients.build typescript
	$(BIN)/python -m pytest tests/clients/typescript.py tests/openai_node/images.py tests/generated_clients/typescript.py tests/c2pa_node/reading.py

test-clients: .venv/installed-dev build/generators/bin/openapi-python-client build/generators/bin/datamodel-codegen build/litellm/bin/litellm  ## the Python client's package and its types, one generated from the OpenAPI document, and litellm against the service; needs PyPI
	$(BIN)/python -m clients.build python
	$(BIN)/python -m pytest tests/clients/python_types.py tests/generated_clients/python.py tests/litellm_client/images.py

test-browser: .venv/installed-dev  ## "Try it out" of every route at /docs; needs Chromium (apt-get install chromium), node, and npm's registry
	$(BIN)/python -m pytest -s tests/docs_browser/docs.py

browser: .venv/installed-browser  ## the page at / in Chromium, against a running service; needs Chromium (apt-get install chromium)
	$(BIN)/python -m pytest -q tests/browser

docs: .venv/installed-docs  ## build the documentation into build/site, and run its commands
	$(BIN)/python -m docs.site
	$(BIN)/python -m pytest -q tests/docs

fuzz: .venv/installed-dev  ## schemathesis against the service, for up to half an hour
	DARKROOM_FUZZ_EXAMPLES=$${DARKROOM_FUZZ_EXAMPLES:-300} DARKROOM_FUZZ_SECONDS=1800 DARKROOM_FUZZ_PHASES=examples,coverage,fuzzing,stateful $(BIN)/python -m pytest -s tests/end_to_end/test_fuzzing.py

chaos: .venv/installed-dev  ## hundreds of jobs through a service that is being broken
	DARKROOM_CHAOS_JOBS=$${DARKROOM_CHAOS_JOBS:-400} DARKROOM_CHAOS_OUTAGE_SECONDS=30 $(BIN)/python -m pytest -s tests/chaos

sentinel: .venv/installed-dev  ## kill the primary under load, with Sentinels: the embedded Redis, Redis 7 over TLS, and Valkey; and fill the memory of the last two
	DARKROOM_SENTINEL_SERVERS="$$($(BIN)/python -c 'from cli.supervisor.redis_server import find_server; print(find_server())'):$$(deploy/bare/redis-servers $(BIN))" $(BIN)/python -m pytest -s tests/sentinel
	for server in redis-7 valkey; do \
	  [ ! -x build/redis-servers/$$server/redis-server ] || PATH="$$PWD/build/redis-servers/$$server:$$PATH" $(BIN)/python -m pytest tests/contracts/redis/test_full_memory.py || exit 1; \
	done

soak: .venv/installed-dev  ## honest and hostile clients for 20 minutes, while everything is broken in turn
	$(BIN)/python -m tests.soak --minutes $${DARKROOM_SOAK_MINUTES:-20}

audit: build/audit/bin/pip-audit  ## known vulnerabilities of the pinned dependencies; needs PyPI, and is for CI with network
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

# In an environment of their own: they need other versions than the rest.
build/generators/bin/python:
	$(PYTHON) -m venv build/generators

build/generators/bin/openapi-python-client: build/generators/bin/python
	PIP_CONSTRAINT= build/generators/bin/python -m pip install --quiet openapi-python-client==0.29.1

build/generators/bin/datamodel-codegen: build/generators/bin/python
	PIP_CONSTRAINT= build/generators/bin/python -m pip install --quiet datamodel-code-generator==0.89.0

# In a folder of its own: where it is installed, every program that imports peft imports it.
build/eight-bit/bitsandbytes: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --no-deps --target build/eight-bit bitsandbytes

# In an environment of its own: it brings 380 MB, and pins of its own.
build/litellm/bin/litellm:
	$(PYTHON) -m venv build/litellm
	PIP_CONSTRAINT= build/litellm/bin/python -m pip install --quiet litellm==1.110.2

build/audit/bin/pip-audit:
	$(PYTHON) -m venv build/audit
	PIP_CONSTRAINT= build/audit/bin/python -m pip install --quiet pip-audit

containers: export PATH := /usr/bin:$(PATH)
containers: export DOCKER_BUILDKIT := 1
containers: .venv/installed-dev  ## build both images, run them with compose, and break them
	deploy/bare/engine
	deploy/bare/base-images $(BIN)
	deploy/bare/promtool $(BIN)
	docker build --target api --tag darkroom-api:latest .
	docker build --target worker --tag darkroom-worker:latest --build-arg PIP_EXTRA_INDEX_URL=$${PIP_EXTRA_INDEX_URL:-} .
	DARKROOM_CHECK_ALL=1 deploy/check $(BIN)
	$(BIN)/python -m pytest tests/containers

gpu-check: .venv/installed-dev  ## what a CUDA card does with this worker, in under four minutes; docs/gpu.md has the figures
	$(BIN)/python -m tests.support.gpu_check

gpu: .venv/installed-dev  ## tests and figures that need a CUDA device
	$(BIN)/python -m pytest tests/gpu
	$(BIN)/python -m bench.gpu

judge: .venv/installed-dev build/eight-bit/bitsandbytes  ## quality of the shapes models, the effect of each field, and each family with each mode, scheduler and plan; when models/ or constraints.txt change
	$(BIN)/python -m pytest tests/models/quality
	$(BIN)/python -m pytest -s tests/worker/checkpoints/quality tests/worker/generation/quality
	PYTHONPATH=build/eight-bit $(BIN)/python -m pytest -s tests/worker/training/quality tests/worker/checkpoints/quantized/quality
	DARKROOM_TEST_ALL_COMBINATIONS=1 $(PYTEST) -q tests/worker tests/contracts/memory tests/contracts/weights tests/models tests/bench tests/test_gpu_check.py tests/end_to_end/test_image_content.py tests/end_to_end/test_tasks.py tests/end_to_end/test_families.py
	for family in sdxl sd3 flux sd15; do \
	  for command in judge 'trial controls' 'trial adapters'; do $(BIN)/python -m models.training $$command $$family || exit 1; done; \
	done
	$(BIN)/python -m models.training judge kontext

manifest:  ## write down the weights that were judged; a test compares them
	cd models && find shapes-* controlnets loras ip_adapters image_encoders textual_inversions upscalers erasers -type f ! -name '*.md' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS

bench: .venv/installed-bench  ## the quick benches that need no GPU, and their page
	for name in overhead api; do OMP_NUM_THREADS=1 $(BIN)/python -m bench.$$name || exit 1; done
	$(BIN)/python -m bench.page

format: .venv/installed-dev  ## let ruff lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## forget everything that was made here, but not the checkpoints
	rm -rf .venv demo data build *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Darkroom needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo 'Installing into .venv, which takes some minutes the first time ...'
	@$(BIN)/python -m pip install --quiet --editable '.[api,worker,embedded]'
	@# Without what it depends on: of torchvision it needs nothing here, and one of another build than torch's breaks transformers.
	@$(BIN)/python -m pip install --quiet --no-deps spandrel
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[api,worker,s3,embedded,dev]'
	@touch $@

.venv/installed-browser: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[api,worker,s3,embedded,dev,browser]'
	@touch $@

.venv/installed-docs: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[api,worker,s3,embedded,dev,docs]'
	@touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[api,worker,embedded,bench]'
	@touch $@
