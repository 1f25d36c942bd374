"""What a command line gets wrong is one line that names the command, and nothing is started."""

from __future__ import annotations

import pytest

from cli.main import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "flux-dev"], "darkroom plan: unrecognized arguments: flux-dev; `darkroom plan --help`"),
        (["check", "--dep=1"], "darkroom check: unrecognized arguments: --dep=1; `darkroom check --help`"),
        (["jobs", "list", "all"], "darkroom jobs list: unrecognized arguments: all"),
        (["models", "list", "--all"], "darkroom models list: unrecognized arguments: --all"),
        (["up", "--port", "99999"], "--port: must be a port from 0 to 65535, got '99999'"),
        (["up", "--port", "-1"], "--port: "),
        (["up", "--workers=-1"], "--workers: must be a number from 0 to 1000, got '-1'"),
    ],
)
def test_what_a_command_does_not_take_is_said_by_that_command(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_error_of_the_system_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--port", "0", "--data", "/proc/nowhere"]) == 1
    assert capsys.readouterr().err == "darkroom: /proc/nowhere: No such file or directory\n"
