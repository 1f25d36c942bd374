"""What is in the images and how they run."""

from __future__ import annotations

import json

import pytest

from tests.containers.stack import Stack, run

_MIB = 2**20


def size(image: str) -> int:
    return int(run("docker", "image", "inspect", "--format", "{{.Size}}", image))


def in_image(image: str, command: str) -> str:
    return run("docker", "run", "--rm", image, "sh", "-c", command).strip()


def test_the_api_image_holds_no_torch_and_no_worker() -> None:
    program = "import importlib.util as u; print([n for n in ('torch','diffusers','worker') if u.find_spec(n)])"
    assert run("docker", "run", "--rm", "darkroom-api:latest", "python3", "-c", program).strip() == "[]"


def test_the_worker_image_holds_no_api() -> None:
    names = ("fastapi", "uvicorn", "app", "dispatcher")
    program = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert run("docker", "run", "--rm", "darkroom-worker:latest", "python3", "-c", program).strip() == "[]"


def test_the_api_image_adds_less_than_350_mb_to_its_base() -> None:
    """Two thirds of it are OpenCV and numpy, which make control images."""
    assert size("darkroom-api:latest") - size("python:3.11-slim-bookworm") < 350 * _MIB


@pytest.mark.parametrize("image", ["darkroom-api:latest", "darkroom-worker:latest"])
def test_no_build_tools_are_left_in_the_environment(image: str) -> None:
    assert in_image(image, "ls /opt/darkroom/bin | grep '^pip' || true") == ""
    assert in_image(image, "command -v gcc make git || true") == ""


@pytest.mark.parametrize("image", ["darkroom-api:latest", "darkroom-worker:latest"])
def test_the_images_carry_labels_and_a_health_check(image: str) -> None:
    config = json.loads(run("docker", "image", "inspect", image))[0]["Config"]
    assert config["Labels"]["org.opencontainers.image.title"] == "Darkroom"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Healthcheck"]["Test"]


@pytest.mark.parametrize(
    ("service", "user"), [("api", 10001), ("worker", 10001), ("dispatcher", 10001), ("redis", 999)]
)
def test_the_parts_run_without_rights_on_a_read_only_root(stack: Stack, service: str, user: int) -> None:
    container = stack.containers(service)[0]
    found = stack.inspect(container)
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert run("docker", "exec", container, "id", "-u").strip() == str(user)
    attempt = "touch /usr/x 2>/dev/null || echo refused"
    assert run("docker", "exec", container, "sh", "-c", attempt).strip() == "refused"


def test_the_parts_are_healthy_by_their_own_check(stack: Stack) -> None:
    for service in ("redis", "api", "worker"):
        for container in stack.containers(service):
            stack.wait_until(
                lambda container=container: stack.inspect(container)["State"]["Health"]["Status"] == "healthy",  # type: ignore[misc]
                f"a healthy {service}",
            )
