"""Small preprocessors, each written once."""

from __future__ import annotations

import pytest

from tests.support.preprocessor_models import PreprocessorFolders


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> PreprocessorFolders:
    return PreprocessorFolders(tmp_path_factory.mktemp("preprocessors"))
