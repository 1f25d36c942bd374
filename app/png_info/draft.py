"""A request as it is in the texts of a file, and the valid part of it. Knows no program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.parsing.requests import Reading, read_values
from app.png_info.view import ImageParameters, NotReadView, Program
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.errors import MAX_PROBLEMS, FieldProblem, InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.schema import REQUESTS, JobRequest

#: Stands for an image while the rest is checked.
PLACEHOLDER = "image"
NO_COUNTERPART = "requests of this service have no field for it"
_MAX_NAME, _MAX_REASON = 100, 500
_LORA_TAG = re.compile(r"\s?<lora:([^:>]{1,128})[^>]{0,64}>")


@dataclass
class Draft:
    """The contents of a file, in our fields.

    Attributes:
        fields: of our request, with `PLACEHOLDER` in place of images.
        names: our field -> its name in the file, where that differs.
        not_read: name in the file -> why it is not among the fields.
        images: path of an image in the request -> what names it there; None: its content is not here.
        n: number of the image among those of the request, counted from 0.
    """

    program: Program
    task: Task = Task.TXT2IMG
    fields: dict[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    not_read: dict[str, str] = field(default_factory=dict)
    images: Mapping[str, str | None] = field(default_factory=dict)
    n: int = 0

    def leave(self, names: Iterable[str], reason: str = NO_COUNTERPART) -> None:
        """Name what is not read; what is named already keeps its reason."""
        for name in names:
            self.not_read.setdefault(name[:_MAX_NAME], reason[:_MAX_REASON])

    def settle(self, catalogue: Catalogue, texts: Iterable[str] = ()) -> ImageParameters:
        """Leave out what a request may not have here, by name, until the rest is a request."""
        kind = REQUESTS[self.task]
        images = dict(self.images)
        for name in ("image", "mask_image"):
            if name in kind.model_fields and kind.model_fields[name].is_required() and name not in self.fields:
                self.fields[name] = PLACEHOLDER
                images[name] = None
        for _ in range(len(self.fields) + MAX_PROBLEMS):
            reading = read_values(kind, self.fields).with_problems(partial(_broken_rules, catalogue))
            if not self._drop_refused(reading.problems):
                break
        request, missing = self._request_of(reading), []
        if request is not None:
            missing = [problem.field for problem in reading.problems]
            unnamed = [_place(request, path, name) for path, name in images.items()]
            missing += [path for path in unnamed if path is not None]
        shown = [NotReadView(field=name, reason=reason) for name, reason in self.not_read.items()]
        return ImageParameters(
            program=self.program,
            request=request,
            n=None if request is None else self.n,
            missing=list(dict.fromkeys(missing)),
            not_read=shown[:MAX_PROBLEMS],
            texts=sorted(texts),
        )

    def _drop_refused(self, problems: Iterable[FieldProblem]) -> bool:
        """Drop the fields that are refused; false where there is none to drop."""
        dropped: set[str] = set()
        for problem in problems:
            root, _, rest = problem.field.partition(".")
            if root not in self.fields or root in dropped:
                continue
            dropped.add(root)
            name, value = self.names.get(root, root), self.fields[root]
            index = rest.partition(".")[0]
            if root == "loras" and index.isdecimal() and int(index) < len(value):
                self.leave([f"{name}.{value[int(index)].get('name', index)}"], problem.message)
                self.fields[root] = [*value[: int(index)], *value[int(index) + 1 :]]
            elif root == "prompt" and isinstance(value, str) and _LORA_TAG.search(value):
                self.fields[root] = self._without_lora(value, problem.message)
            else:
                self.leave([name], problem.message)
                del self.fields[root]
        return bool(dropped)

    def _without_lora(self, prompt: str, message: str) -> str:
        """A prompt without the LoRA that an error names; without all of them where it names none."""
        tags = list(_LORA_TAG.finditer(prompt))
        refused = [tag for tag in tags if repr(tag[1]) in message] or tags
        self.leave([f"<lora:{tag[1]}>" for tag in refused], message)
        for tag in reversed(refused):
            prompt = prompt[: tag.start()] + prompt[tag.end() :]
        return prompt.strip()

    def _request_of(self, reading: Reading[JobRequest]) -> dict[str, Any] | None:
        if not reading.requests or not self.fields.keys() - {"image", "mask_image"}:
            return None
        request = reading.requests[0].model_dump(mode="json", include=set(self.fields), exclude_none=True)
        return {"task": self.task.value, **{name: value for name, value in request.items() if value != []}}


def _broken_rules(catalogue: Catalogue, request: JobRequest) -> list[FieldProblem]:
    try:
        check(request, catalogue)
    except InvalidRequest as error:
        return list(error.problems)
    return []


def _place(request: dict[str, Any], path: str, name: str | None) -> str | None:
    """Put an image's name into its field; without a name, leave the field out and return its path.

    If an image of a list has no name, the whole list is left out, since positions matter.
    """
    steps = path.split(".")
    holder: Any = request
    for depth, step in enumerate(steps[:-1]):
        inner = holder[int(step)] if isinstance(holder, list) else holder.get(step)
        if inner is None:
            return None  # the field was left out as a whole
        if name is None and isinstance(inner, list) and depth == len(steps) - 2:
            del holder[step]
            return ".".join(steps[:-1])
        holder = inner
    last: Any = int(steps[-1]) if isinstance(holder, list) else steps[-1]
    if not isinstance(holder, list) and last not in holder:
        return None
    if name is None:
        del holder[last]
        return path
    holder[last] = name
    return None
