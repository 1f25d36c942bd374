"""Signs image files with Content Credentials, with the reference library. Connects to no other host.

Its signatures differ each time (c2pa-rs salts every assertion), so a file is signed once, last, before it is
stored. The pixels, the text chunks and the EXIF of the file stay as they are.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

import c2pa

from contracts.provenance.identity import Identity
from contracts.provenance.manifest import SOURCE_LABEL, PromptDetail, make_manifest
from contracts.storage import Storage

_log = logging.getLogger(__name__)
#: No thumbnails, which cost ten times as much as the signature, and no network.
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"ocsp_fetch": False, "remote_manifest_fetch": False},
}


class ContentCredentials:
    """The signer of one process. Safe in several threads."""

    def __init__(
        self,
        identity: Callable[[], Identity],
        storage: Storage,
        version: str,
        prompts: PromptDetail,
        api_keys: Collection[str] = (),
    ) -> None:
        """Build it; the identity is asked for at the first signature.

        Args:
            storage: of the images that others are made from.
            version: Darkroom's.
            prompts: whether the signed receipt has prompts or their hashes.
            api_keys: ids of those whose images are signed; empty: all.
        """
        self._identity = identity
        self._storage = storage
        self._version = version
        self._prompts = prompts
        self._api_keys = frozenset(api_keys)

    def signs_for(self, api_key: str) -> bool:
        """Whether the images of an API key's jobs are signed."""
        return not self._api_keys or api_key in self._api_keys

    def sign(
        self, data: bytes, file_format: str, receipt: Mapping[str, Any], pixels_sha256: str, source: str | None
    ) -> bytes:
        """Return an image file with its credentials inside.

        Args:
            file_format: `png`, `jpeg` or `webp`.
            receipt: of this image, as its file has it.
            source: storage key of the image that it was made from.

        Raises:
            NotFound: the source is no longer stored.
            Unavailable: the storage does not answer.
            RuntimeError: the library refuses to sign.
        """
        original = None if source is None else self._storage.read(source)
        manifest = make_manifest(
            receipt, pixels_sha256, self._version, self._prompts, has_source=source is not None
        )
        signed = io.BytesIO()
        try:
            with c2pa.Builder(manifest, c2pa.Context.from_dict(_SETTINGS)) as builder:
                if source is not None and original is not None:
                    _add_source(builder, source, original)
                builder.sign(self._signer, f"image/{file_format}", io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise RuntimeError(f"the image could not be signed: {error}") from error
        return signed.getvalue()

    @cached_property
    def _signer(self) -> c2pa.Signer:
        identity = self._identity()
        if identity.is_development:
            _log.warning("images are signed with a development certificate, which nobody outside trusts")
        algorithm = c2pa.C2paSigningAlg[identity.algorithm.upper()]
        if identity.sign is not None:
            return c2pa.Signer.from_callback(identity.sign, algorithm, identity.certificates, None)
        chain, key = identity.certificates.encode(), identity.key.encode()
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, key, None))


def _add_source(builder: c2pa.Builder, key: str, data: bytes) -> None:
    """Name the image that another was made from, with its own credentials if it has some."""
    name = key.rpartition("/")[2]
    ingredient = {"title": name, "relationship": "parentOf", "label": SOURCE_LABEL, "instance_id": SOURCE_LABEL}
    media_type = f"image/{name.rpartition('.')[2]}"
    builder.add_ingredient(json.dumps(ingredient), media_type, io.BytesIO(data))
