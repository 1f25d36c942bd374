"""Prompts over HTTP: what the encoders read is in the answers, and what cannot be meant is refused."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

LONG = "very nice detailed picture " * 40 + "of a red circle"


def test_the_answers_say_what_each_encoder_reads(client: TestClient, subtests: pytest.Subtests) -> None:
    for model in ["shapes-sdxl", "shapes-sd3", "shapes-flux"]:
        with subtests.test(model=model):
            body = {"prompt": LONG, "model": model}

            accepted = client.post("/v1/txt2img", json=body)
            planned = client.post("/v1/plan", json={"task": "txt2img", **body}).json()

            assert accepted.status_code == 202
            tokens = accepted.json()["prompt_tokens"]
            assert all(use["given"] > 160 for use in tokens.values())
            assert (tokens["text_encoder"]["used"] == tokens["text_encoder"]["given"]) is (model != "shapes-flux")
            assert planned["prompt_tokens"] == tokens
            assert accepted.json()["negative_prompt_tokens"] is planned["negative_prompt_tokens"] is None
            assert client.get(f"/v1/jobs/{accepted.json()['id']}").json()["prompt_tokens"] == tokens


def test_a_negative_prompt_is_counted_too(client: TestClient) -> None:
    body = {"prompt": "a circle", "negative_prompt": LONG, "long_prompt": "truncate"}

    tokens = client.post("/v1/txt2img", json=body).json()["negative_prompt_tokens"]

    assert {use["used"] for use in tokens.values()} == {75}


def test_a_prompt_that_cannot_be_read_as_asked_is_refused_with_its_field(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for body, field in [
        ({"prompt": LONG, "long_prompt": "refuse"}, "prompt"),
        ({"prompt": "a", "negative_prompt": LONG, "long_prompt": "refuse"}, "negative_prompt"),
        ({"prompt": LONG, "long_prompt": "refuse", "model": "shapes-flux"}, "prompt"),
        ({"prompt": "🥚" * 5000}, "prompt"),
        ({"prompt": "a", "long_prompt": "chunk", "model": "shapes-flux"}, "long_prompt"),
        ({"prompt": "a", "long_prompt": "cut"}, "long_prompt"),
        ({"prompt": "a <lora:missing:1>", "prompt_syntax": "a1111"}, "prompt"),
        ({"prompt": "(a:nan)", "prompt_syntax": "a1111"}, "prompt"),
        ({"prompt": "a", "prompt_syntax": "compel"}, "prompt_syntax"),
    ]:
        with subtests.test(body=body, field=field):
            response = client.post("/v1/txt2img", json=body)

            assert response.status_code == 422
            assert [error["field"] for error in response.json()["errors"]] == [field]
            assert client.get("/v1/jobs").json()["data"] == []


def test_a_lora_in_the_prompt_is_a_lora_of_the_job_and_of_its_rerun(client: TestClient) -> None:
    prompt = "a (red:1.3) circle <lora:shapes-sdxl-tint:0.5>"
    job = client.post("/v1/txt2img", json={"prompt": prompt, "prompt_syntax": "a1111"}).json()

    again = client.post(f"/v1/jobs/{job['id']}/rerun", json={})

    assert again.status_code == 202, again.text
    refused = client.post(f"/v1/jobs/{job['id']}/rerun", json={"prompt": prompt})
    assert "repeats shapes-sdxl-tint" in refused.json()["errors"][0]["message"]
