"""Counts the tokens of prompts with the tokenizers of the checkpoints that are on this machine.

Reads a tokenizer's files once, without torch or transformers. Where they are not here, or cannot be read, there is
no count: the worker counts when it encodes, and its receipt says so.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError, InvalidRequest
from contracts.hub_revisions import AgreedRows
from contracts.prompts.tokens import Tokenize
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.counts import PromptCounts, count_tokens

_log = logging.getLogger(__name__)

#: A larger file is not read: T5's, the largest of the known families, has 2.4 MB.
_MAX_FILE_BYTES = 32 * 2**20
#: Until it is looked up again where a model's files are: a worker may have fetched them, or others, meanwhile.
_LOOK_AGAIN_SECONDS = 30.0
#: Texts of which a tokenizer remembers the tokens: a prompt is mostly sent several times, with other seeds.
_REMEMBERED_TEXTS = 64
#: CLIP's pattern of words; see `CLIPTokenizer` of transformers.
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class PromptCounter:
    """The tokenizers of the catalogue's models, each read when the first request needs it. Thread-safe."""

    def __init__(self, catalogue: Catalogue, agreed_rows: AgreedRows | None = None) -> None:
        """`agreed_rows`: the commits of what is on a hub; None: those of this machine's cache."""
        self._catalogue = catalogue
        self._agreed_rows = agreed_rows
        #: By model, and by the folder that they were read from.
        self._known: dict[str, tuple[Path, Mapping[str, Tokenize]]] = {}
        self._look_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def count(self, model: ModelSpec, job: JobParameters) -> PromptCounts | None:
        """Return what each encoder will read of the job's prompts; None where the tokenizers are not here.

        Raises:
            InvalidRequest: a prompt is longer than the job allows.
        """
        tokenizers = self._tokenizers(model)
        if tokenizers is None:
            return None
        counts = count_tokens(model.family_spec, job, tokenizers)
        if counts.problems:
            raise InvalidRequest(counts.problems)
        return counts

    def _tokenizers(self, model: ModelSpec) -> Mapping[str, Tokenize] | None:
        """Return encoder -> its tokenizer. Where the files are is looked up again from time to time."""
        with self._lock:
            if time.monotonic() >= self._look_at.get(model.id, 0.0):
                self._look_at[model.id] = time.monotonic() + _LOOK_AGAIN_SECONDS
                self._look_up(model)
            return self._known[model.id][1] if model.id in self._known else None

    def _look_up(self, model: ModelSpec) -> None:
        try:
            row = model if self._agreed_rows is None else self._agreed_rows.row(self._catalogue, model)
            folder = _folder_of(self._catalogue, row)
            if folder is None:
                self._known.pop(model.id, None)
            elif model.id not in self._known or self._known[model.id][0] != folder:
                encoders = model.family_spec.text_encoders
                found = {encoder.name: read_tokenizer(folder / encoder.tokenizer) for encoder in encoders}
                self._known[model.id] = (folder, found)
        except Exception as error:  # noqa: BLE001  # the Rust library raises plain Exception for a bad file
            _log.warning("the tokens of prompts for %s are not counted here: %s", model.id, error)
            self._known.pop(model.id, None)


def _folder_of(catalogue: Catalogue, model: ModelSpec) -> Path | None:
    """The folder with the model's components on this machine; None where there is none."""
    place = catalogue.place(model)
    if isinstance(place, Path) and place.is_dir():
        return place
    if model.config is not None:
        config = catalogue.locate(model.config)
        return config if isinstance(config, Path) and config.is_dir() else None
    cached = find_cached(catalogue, model)
    return None if cached is None else cached.folder


def read_tokenizer(folder: Path) -> Tokenize:
    """Read the tokenizer of one encoder from `tokenizer.json`, or CLIP's from `vocab.json` and `merges.txt`.

    Raises:
        CatalogueError: the files do not exist, or one is too large.
        Exception: a file is not what it should be.
    """
    whole = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_str(_text_of(whole)) if whole.is_file() else _clip_tokenizer(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    @lru_cache(_REMEMBERED_TEXTS)
    def tokenize(text: str) -> tuple[tuple[int, int], ...]:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return tuple((token, end) for token, (_, end) in zip(encoding.ids, encoding.offsets, strict=True))

    return tokenize


def _clip_tokenizer(folder: Path) -> Tokenizer:
    """CLIP's tokenizer as transformers builds it."""
    vocabulary = json.loads(_text_of(folder / "vocab.json"))
    lines = _text_of(folder / "merges.txt").splitlines()
    pairs = [line.partition(" ") for line in lines if not line.startswith("#version")]
    merges = [(first, second) for first, space, second in pairs if space]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token="<|endoftext|>",  # noqa: S106
        )
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise CatalogueError(f"{path.parent.name} has no tokenizer.json, nor vocab.json and merges.txt")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise CatalogueError(f"{path.name} has more than {_MAX_FILE_BYTES} bytes")
    return path.read_text(encoding="utf-8")
