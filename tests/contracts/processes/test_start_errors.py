"""A program that cannot start says why in one line."""

from __future__ import annotations

import pytest

from contracts.errors import SettingsError
from contracts.processes.start_errors import start_errors_in_one_line
from contracts.settings import QueueSettings


def test_a_wrong_setting_ends_the_program_with_its_name_and_variable() -> None:
    with pytest.raises(SystemExit) as ended, start_errors_in_one_line("darkroom worker"):
        QueueSettings(lease_seconds=-1)
    assert str(ended.value).startswith("darkroom worker: DARKROOM_QUEUE_LEASE_SECONDS: ")
    assert "\n" not in str(ended.value)


def test_an_error_of_the_service_ends_the_program_with_its_own_text() -> None:
    with pytest.raises(SystemExit) as ended, start_errors_in_one_line("darkroom api"):
        raise SettingsError("port 8000 is taken")
    assert ended.value.code == "darkroom api: port 8000 is taken"


def test_a_bug_is_not_taken_for_an_error_of_settings() -> None:
    with pytest.raises(KeyError), start_errors_in_one_line("darkroom api"):
        raise KeyError("a bug")
