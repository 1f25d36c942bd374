"""What a request's prompts become, and what is refused of them, by family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import InvalidRequest
from contracts.jobs.records import JobRecord
from contracts.prompts.tokens import MAX_WINDOWS, TokenUse
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.counts import count_tokens
from contracts.requests.schema import Txt2ImgRequest

LORAS = tuple(LoraSpec(id=f"l{index}", family="sdxl", source="x.safetensors") for index in range(9))
CATALOGUE = Catalogue(
    root=Path("/"),
    default_model="sdxl",
    models=tuple(ModelSpec(id=name, family=name, source=name) for name in FAMILIES),
    loras=LORAS,
)


def job_of(**body: Any) -> JobParameters:
    request = Txt2ImgRequest.model_validate_json(json.dumps({"prompt": "a red circle", **body}), strict=True)
    return resolve(request, check(request, CATALOGUE), {})


def refusal_of(**body: Any) -> tuple[str, str]:
    """The field and the message of the only problem."""
    with pytest.raises(InvalidRequest) as caught:
        job_of(**body)
    (problem,) = caught.value.problems
    return problem.field, problem.message


def words(text: str) -> list[tuple[int, int]]:
    """A tokenizer with one token a word."""
    ends, position = [], 0
    for word in text.split():
        position = text.index(word, position) + len(word)
        ends.append((1, position))
    return ends


def count(**body: Any) -> Any:
    job = job_of(**body)
    family = FAMILIES[job.model]
    return count_tokens(family, job, {encoder.name: words for encoder in family.text_encoders})


def test_a_plain_prompt_is_stored_as_it_is() -> None:
    text = "a (red:1.9) circle BREAK [x|y] <lora:l0:1> AND"

    job = job_of(prompt=text)

    assert (job.prompt, job.prompt_chunks, job.loras) == (text, {}, ())
    assert job.text_of("prompt") == text


def test_a_prompt_in_the_web_uis_syntax_becomes_spans_and_loras() -> None:
    job = job_of(
        prompt=r"a (red:1.9) \(circle\) <lora:l1:0.5>",
        negative_prompt="[blue]",
        loras=[{"name": "l0"}],
        prompt_syntax="a1111",
    )

    assert job.prompt == r"a (red:1.9) \(circle\)"
    assert job.text_of("prompt") == "a red (circle)"
    assert job.prompt_chunks == {
        "prompt": ((("a ", 1.0), ("red", 1.9), (" (circle)", 1.0)),),
        "negative_prompt": ((("blue", 0.909091),),),
    }
    assert [(lora.name, lora.scale) for lora in job.loras] == [("l0", 1.0), ("l1", 0.5)]
    assert JobParameters.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("body", "field", "part"),
    [
        ({"prompt": "(a:inf)"}, "prompt", "inf"),
        ({"negative_prompt": "(a:-1)"}, "negative_prompt", "-1"),
        ({"prompt": "a <lora:unknown:1>"}, "prompt", "unknown LoRA 'unknown'"),
        ({"prompt": "a <lora:l0:1>", "loras": [{"name": "l0"}]}, "prompt", "repeats l0"),
        ({"prompt": "a" + "".join(f"<lora:l{index}:1>" for index in range(9))}, "prompt", "at most 8"),
        ({"negative_prompt": "a <lora:l0:1>"}, "negative_prompt", "move it there"),
        ({"prompt": " <lora:l0:1> "}, "prompt", "no text"),
        ({"prompt": "a BREAK b", "model": "flux"}, "prompt", "no effect"),
        ({"prompt": "a BREAK b", "long_prompt": "truncate"}, "prompt", "chunk"),
        ({"prompt": "(a:1.3)", "prompt_2": "b", "model": "flux"}, "prompt", "prompt_2"),
        ({"long_prompt": "chunk", "model": "flux"}, "long_prompt", "truncate, refuse"),
    ],
)
def test_what_cannot_act_is_refused_with_its_field(body: dict[str, Any], field: str, part: str) -> None:
    refused, message = refusal_of(prompt_syntax="a1111", **body)

    assert refused == field
    assert part in message


def test_every_reason_about_prompts_comes_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        job_of(prompt="(a:9) AND <lora:no:1>", negative_prompt="[a|b]", prompt_syntax="a1111")

    assert [problem.field for problem in caught.value.problems].count("prompt") == 3
    assert "negative_prompt" in [problem.field for problem in caught.value.problems]


def test_spans_count_against_the_limit_on_prompts() -> None:
    field, message = refusal_of(prompt="(a)b" * 2500, negative_prompt="(a)b" * 2500, prompt_syntax="a1111")

    assert field == "prompt"
    assert "65536 bytes" in message


def test_long_prompts_are_read_in_windows_by_default_where_clip_gives_a_sequence_and_cut_off_elsewhere() -> None:
    defaults = {name: job_of(model=name).long_prompt for name, row in FAMILIES.items() if row.text_encoders}
    in_windows = {"sdxl", "sd3", "sd15"}
    assert defaults == {name: "chunk" if name in in_windows else "truncate" for name in defaults}
    assert in_windows < defaults.keys()


def test_each_encoder_says_what_it_is_given_and_what_it_reads() -> None:
    long = {"prompt": "word " * 200, "prompt_2": "word " * 10, "negative_prompt": "word " * 90}
    every, ten, cut = TokenUse(given=200, used=200), TokenUse(given=10, used=10), TokenUse(given=200, used=75)

    sdxl = count(**long)
    assert sdxl.prompt == {"text_encoder": every, "text_encoder_2": ten}
    assert sdxl.negative == dict.fromkeys(sdxl.prompt, TokenUse(given=90, used=90))
    assert count(**long, long_prompt="truncate").prompt == {"text_encoder": cut, "text_encoder_2": ten}
    sd3 = count(**long, model="sd3", max_sequence_length=100).prompt
    assert sd3 == {"text_encoder": every, "text_encoder_2": ten, "text_encoder_3": TokenUse(given=200, used=99)}
    flux = count(prompt="word " * 600, model="flux").prompt
    assert flux == {"text_encoder": TokenUse(given=600, used=75), "text_encoder_2": TokenUse(given=600, used=511)}


@pytest.mark.parametrize(
    ("body", "field", "remedy"),
    [
        ({"prompt": "word " * 76}, "prompt", "set long_prompt to chunk"),
        ({"prompt_2": "word " * 76}, "prompt_2", "set long_prompt to chunk"),
        ({"negative_prompt": "word " * 76}, "negative_prompt", "set long_prompt to chunk"),
        ({"prompt_3": "word " * 300, "model": "sd3"}, "prompt_3", "raise max_sequence_length"),
        ({"prompt": "word " * 99, "model": "flux", "max_sequence_length": 99}, "prompt", "raise max_sequence"),
        ({"prompt": "word " * 512, "model": "flux"}, "prompt", "set long_prompt to truncate"),
    ],
)
def test_a_prompt_that_an_encoder_cannot_read_is_refused_where_that_is_wanted(
    body: dict[str, Any], field: str, remedy: str
) -> None:
    (problem,) = count(**body, long_prompt="refuse").problems

    assert (problem.field, remedy in problem.message) == (field, True)
    assert count(**{**body, field: "word " * 75}, long_prompt="refuse").problems == ()


def test_a_prompt_of_too_many_windows_is_refused() -> None:
    (problem,) = count(prompt="word " * 100 + "x BREAK " * 31, prompt_syntax="a1111").problems

    assert problem.field == "prompt"
    assert f"{MAX_WINDOWS} are allowed" in problem.message
    assert "fewer BREAKs" in problem.message
    assert count(prompt="w " * (75 * MAX_WINDOWS)).problems == ()


def test_an_older_release_does_not_take_weights_for_text() -> None:
    def version_of(**body: Any) -> str:
        fields = {"id": "x", "state": "queued", "owner": "a", "priority": "normal", "created_at": 0}
        return JobRecord.model_validate({**fields, "parameters": job_of(**body)}).to_hash()["version"]

    assert version_of(prompt="(red:1.3)") == "1"
    assert version_of(prompt="red", prompt_syntax="a1111") == "1"
    assert version_of(prompt="(red:1.3)", prompt_syntax="a1111") == "2"


@pytest.mark.parametrize("prompt", ["()", "((((", "[[ ]", "BREAK", " BREAK (BREAK) "])
def test_a_prompt_that_has_only_syntax_is_refused(prompt: str) -> None:
    field, message = refusal_of(prompt=prompt, prompt_syntax="a1111")
    assert (field, message) == ("prompt", "has only brackets and BREAKs; say what the image shows")
    assert job_of(prompt=prompt).prompt == prompt
    assert job_of(negative_prompt=prompt, guidance_scale=3.0, prompt_syntax="a1111").negative_prompt == prompt


@pytest.mark.parametrize(
    "body",
    [
        {"model": "x" * 9000},
        {"scheduler": "x" * 9000},
        {"loras": [{"name": "x" * 9000, "scale": 1.0}]},
        {"prompt": f"a <lora:{'x' * 9000}:1>", "prompt_syntax": "a1111"},
    ],
)
def test_an_unknown_name_is_quoted_by_its_beginning(body: dict[str, Any]) -> None:
    _, message = refusal_of(**body)
    assert message.startswith("unknown ")
    assert len(message) < 200
