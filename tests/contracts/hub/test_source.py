"""The forms in which rows name what is on a hub."""

from __future__ import annotations

import pytest

from contracts.hub.source import HubSource, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("org/name", HubSource("org/name")),
        ("org/a.b_c-1", HubSource("org/a.b_c-1")),
        ("org/name/a.safetensors", HubSource("org/name", None, "a.safetensors")),
        ("org/name/deep/a b.safetensors", HubSource("org/name", None, "deep/a b.safetensors")),
        ("https://huggingface.co/org/name", HubSource("org/name")),
        ("https://huggingface.co/org/name/", HubSource("org/name")),
        ("https://huggingface.co/org/name/tree/v1", HubSource("org/name", "v1")),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", HubSource("org/name", "refs/pr/1")),
        (
            "https://huggingface.co/org/name/blob/main/a.safetensors",
            HubSource("org/name", "main", "a.safetensors"),
        ),
        (
            "https://huggingface.co/org/name/resolve/v1/deep/a%20b.safetensors?download=true",
            HubSource("org/name", "v1", "deep/a b.safetensors"),
        ),
        ("http://mirror.test:8080/org/name", HubSource("org/name")),
    ],
)
def test_what_names_a_repository_or_a_file_is_read(
    text: str, source: HubSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.test:8080")
    assert parse_source(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "/org/name",
        "./name",
        "../org/name",
        "org/..",
        "org/name/",
        "org/name/unet",
        "org/name/a.ckpt",
        "org/a.safetensors",
        "org/name/../../a.safetensors",
        "org/name//a.safetensors",
        "org/na--me",
        "org/na me",
        "https://huggingface.co/org",
        "https://huggingface.co/org/name/blob/main",
        "https://huggingface.co/org/name/blob/main/a.bin",
        "https://huggingface.co/org/name/resolve/main/..%2F..%2Fa.safetensors",
        "https://huggingface.co/org/name/commits/main",
        "https://elsewhere.test/org/name",
        "ftp://huggingface.co/org/name",
        "https://huggingface.co:port/org/name",
        "https://[/org/name",
    ],
)
def test_anything_else_is_not(text: str) -> None:
    assert parse_source(text) is None
