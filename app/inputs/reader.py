"""Reads the images that a request names, and stores them before its job is queued.

`finder.py` finds an image by what names it. It may also be given beside the request, as bytes or in the storage.
Each is decoded once. Its storage key is chosen when it is read, so that the job's parameters name it from the
start; only `store` changes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from app.inputs.base64_text import decode_base64, decode_data_url, is_remote
from app.inputs.decoder import ImageDecoder, InputImage
from app.inputs.fetcher import Fetcher
from app.inputs.finder import ACCEPT_SECONDS, ImageFinder
from app.inputs.image import GivenImage, Input, Inputs, ReferenceRoom, write_image
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import (
    FieldProblem,
    ImageTooLarge,
    InvalidRequest,
    NotAnImage,
    TryLater,
    Unavailable,
)
from contracts.queue.client import JobQueue
from contracts.requests.defaults import CONTROL_MAP, map_options
from contracts.requests.images.preprocessing import Options
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.rebuilding import is_mask
from contracts.requests.schema import DeliveryFields, JobRequest
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention

#: Beginning of the path of a reference image.
_REFERENCE = "references."
#: Beginning of the path of an image to learn from, and what all of those of a request may take in memory.
_EXAMPLE, _MAX_EXAMPLE_BYTES = "images.", 256 * 2**20


class InputReader:
    """Reader of the images of one owner's requests."""

    def __init__(
        self,
        decoder: ImageDecoder,
        queue: JobQueue,
        storage: Storage,
        retention: Retention,
        owner: str,
        fetcher: Fetcher | None = None,
        max_bytes: int = 0,
    ) -> None:
        """`fetcher` is None where fetching is not allowed; `max_bytes` limits the owner's files, 0: no limit."""
        self._limit = ByteLimit(owner, max_bytes)
        self._decoder = decoder
        self._storage = storage
        self._retention = retention
        self._owner = owner
        self._finder = ImageFinder(decoder, queue, storage, retention, owner, fetcher)

    def read(self, request: DeliveryFields, given: Mapping[str, GivenImage] | None = None) -> Inputs:
        """Find and decode every image of a request.

        Args:
            given: images by field path; the request's own text for these fields is not read.

        Raises:
            InvalidRequest: the name of an image is unknown, is not base64, or cannot be fetched; or something is
                wrong with several images.
            ImageTooLarge: more bytes or pixels than the limits of an image, which all references share.
            NotAnImage: the bytes are not an image.
            TooManyImages: too many images are being decoded.
            Unavailable: Redis or the storage does not answer.
        """
        given = given or {}
        keys: dict[str, str] = {}
        images: dict[str, Input] = {}
        errors: list[InvalidRequest | ImageTooLarge | NotAnImage] = []
        room, example_bytes = ReferenceRoom(self._decoder), 0
        for field, text in _fields_of(request):
            try:
                images[field] = self._read(field, given.get(field, text), keys)
                if field.startswith(_REFERENCE):
                    room.take(field, images[field])
            except (InvalidRequest, ImageTooLarge, NotAnImage) as error:
                errors.append(error)
                continue
            decoded = images[field].decoded
            example_bytes += len(decoded.data) if field.startswith(_EXAMPLE) and decoded is not None else 0
            if example_bytes > _MAX_EXAMPLE_BYTES:
                message = (
                    f"bring the images up to {example_bytes} bytes once decoded; scale them down, or send fewer"
                )
                raise ImageTooLarge("images", message, f"up to {_MAX_EXAMPLE_BYTES} bytes in all images")
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise InvalidRequest([problem for error in errors for problem in _problems_of(error)])
        return images

    def find_problems(
        self, request: DeliveryFields, given: Mapping[str, GivenImage], known: Iterable[str]
    ) -> list[FieldProblem]:
        """Return what is wrong with the images of a request that is refused for another reason.

        Nothing is fetched for such a request; what cannot be told now is told once the rest is right.

        Args:
            known: fields that are not to be looked at; an image inside one of them is not, either.
        """
        problems: list[FieldProblem] = []
        skipped = tuple(f"{field}." for field in known)
        for field, text in _fields_of(request):
            source = given.get(field, text)
            if f"{field}.".startswith(skipped) or (isinstance(source, str) and is_remote(source)):
                continue
            try:
                self._read(field, source, {})
            except (InvalidRequest, ImageTooLarge, NotAnImage) as error:
                problems += _problems_of(error)
            except (TryLater, Unavailable):
                break
        return problems

    def read_alpha_mask(self, field: str, source: str | bytes) -> InputImage:
        """Read an image, named or as bytes, as the mask of its transparent part; raises as `read`."""
        return self._decoder.decode_alpha_mask(self._bytes_of(field, source), field, self._owner)

    def read_with_hole(self, field: str, source: str | bytes) -> tuple[InputImage, InputImage | None]:
        """Read an image, named or as bytes, and the mask of its transparent part, if any; raises as `read`."""
        return self._decoder.decode_with_hole(self._bytes_of(field, source), field, self._owner)

    def read_image(self, field: str, source: str | bytes) -> InputImage:
        """Read an image, named or as bytes; raises as `read`."""
        return self._decoder.decode(self._bytes_of(field, source), field, self._owner)

    def read_mask(self, field: str, source: str | bytes, *, inverted: bool = False) -> InputImage:
        """Read a mask, named or as bytes; an inverted one is black where the image changes. Raises as `read`."""
        decode = self._decoder.decode_inverted_mask if inverted else self._decoder.decode_mask
        return decode(self._bytes_of(field, source), field, self._owner)

    def preprocess(self, request: JobRequest, model: ModelSpec, images: Inputs) -> Inputs:
        """Return the images with what the preprocessors of a request's controls make of them: `controls.0.map`.

        Raises:
            ImageTooLarge, NotAnImage, TooManyImages, Unavailable: as `read`.
        """
        stored = {path: image.stored for path, image in images.items()}
        keys = {image.decoded.sha256: image.stored.key for image in images.values() if image.decoded is not None}
        made: dict[str, Input] = {}
        for index, (name, options) in map_options(request, model, stored).items():
            field = f"controls.{index}.image"
            made[f"controls.{index}{CONTROL_MAP}"] = self._read(
                field, self.make_map(field, images[field], name, options), keys
            )
        return {**images, **made}

    def make_map(self, field: str, image: Input, name: str, options: Options) -> InputImage:
        """Return what a preprocessor makes of an image; raises as `preprocess`."""
        data = self._storage.read(image.stored.key) if image.decoded is None else image.decoded.data
        return self.preprocess_file(field, data, name, options)

    def preprocess_file(self, field: str, data: bytes, name: str, options: Options) -> InputImage:
        """Return a preprocessor's result for an image in its stored form; raises as `preprocess`."""
        return self._decoder.preprocess(data, name, options, field, self._owner)

    def read_file(self, field: str, text: str) -> bytes:
        """The bytes of a file that is not an image, from base64 or a `data:` URL; raises as `read`."""
        if text[:5].lower() == "data:":
            return decode_data_url(field, text, self._decoder)
        return decode_base64(field, text, self._decoder)

    def latents(self, data: bytes) -> Input:
        """Latents as an input, with its storage key; they have no size in pixels."""
        sha256 = hashlib.sha256(data).hexdigest()
        key = self._retention.key_for(sha256, "safetensors")
        file = InputImage(
            width=0, height=0, format="safetensors", stored_format="safetensors", data=data, sha256=sha256
        )
        return Input(StoredImage(key, 0, 0), file)

    def find(self, field: str, source: str | bytes) -> Input:
        """Read an image, named or as bytes, where it is; raises as `read`."""
        return self._read(field, source, {})

    def fill(self, field: str, image: InputImage, mask: InputImage) -> InputImage:
        """Fill an image with its surroundings where its mask is white; raises ImageTooLarge, TooManyImages."""
        return self._decoder.fill(image.data, mask.data, field, self._owner)

    def store(self, inputs: Inputs) -> bool:
        """Register the decoded images and write them to their storage keys.

        Raises:
            QuotaExceeded: they would exceed what the owner may store.
            Unavailable: Redis or the storage does not answer.

        Returns:
            False if another request has meanwhile registered one of them with its own key: read them again.
        """
        for image in inputs.values():
            if image.decoded is None:
                continue
            key = self._retention.retain(
                image.decoded.sha256,
                ACCEPT_SECONDS,
                key=image.stored.key,
                size_bytes=len(image.decoded.data),
                limit=self._limit,
            )
            if key != image.stored.key:
                return False
            write_image(self._storage, key, image.decoded)
        return True

    def _read(self, field: str, source: str | GivenImage, keys: dict[str, str]) -> Input:
        """Read one image; `keys` are those chosen for the request's images so far, by content."""
        image = self._finder.find(field, source) if isinstance(source, str) else source
        if is_mask(field) and not isinstance(image, InputImage):
            # What is stored by a name is an image; that it is a mask is known here.
            data = image if isinstance(image, bytes) else self._storage.read(image.key)
            image = self._decoder.decode_mask(data, field, self._owner)
        elif isinstance(image, bytes):
            image = self._decoder.decode(image, field, self._owner)
        if isinstance(image, StoredImage):
            return Input(image)
        key = keys.get(image.sha256) or self._retention.key_for(image.sha256, image.stored_format)
        keys[image.sha256] = key
        notes = (image.color_profile, image.mask_source, image.white)
        return Input(StoredImage(key, image.width, image.height, *notes), image)

    def _bytes_of(self, field: str, source: str | bytes) -> bytes:
        data = source if isinstance(source, bytes) else self._finder.find(field, source)
        return self._storage.read(data.key) if isinstance(data, StoredImage) else data


def _problems_of(error: InvalidRequest | ImageTooLarge | NotAnImage) -> tuple[FieldProblem, ...]:
    return error.problems if isinstance(error, InvalidRequest) else (error.problem,)


def _fields_of(request: DeliveryFields) -> Iterator[tuple[str, str]]:
    """Yield path and text of each image field that a request sets."""
    for field in ("image", "mask_image", "control_image"):
        text = vars(request).get(field)
        if text is not None:
            yield field, text
    for index, control in enumerate(vars(request).get("controls", ())):
        if control.image is not None:
            yield f"controls.{index}.image", control.image
    for index, text in enumerate(vars(request).get("references", ())):
        yield f"{_REFERENCE}{index}", text
    for index, example in enumerate(vars(request).get("images", ())):
        yield f"images.{index}.image", example.image
        if example.conditioning_image is not None:
            yield f"images.{index}.conditioning_image", example.conditioning_image
    for number, adapter in enumerate(vars(request).get("ip_adapters", ())):
        for index, image in enumerate(adapter.images):
            yield f"ip_adapters.{number}.images.{index}", image
        if adapter.mask is not None:
            yield f"ip_adapters.{number}.mask", adapter.mask
