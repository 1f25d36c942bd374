"""How the variables of the hub are shown to operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.hub.environment import describe_environment


def test_the_variables_are_described_with_their_values_and_the_token_as_set_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "https://mirror.example", "HF_HUB_OFFLINE": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for token, told in (("hf_a_secret_token", "set, not shown"), ("", "none")):
        monkeypatch.setenv("HF_TOKEN", token)
        rows = {line.split()[0]: line for line in describe_environment().splitlines()}
        assert rows["HF_TOKEN"].endswith(told)
        assert "hf_a_secret_token" not in "".join(rows.values())
    assert str(tmp_path / "hub") in rows["HF_HOME"]
    assert rows["HF_ENDPOINT"].endswith("https://mirror.example")
    assert rows["HF_HUB_OFFLINE"].endswith("on")
