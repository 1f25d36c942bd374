"""Who may read what the service writes: never other users of the machine. Knows nothing of what the files hold."""

from __future__ import annotations

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)

_GROUP_AND_OTHERS, _OTHERS = 0o077, 0o007
#: The service's own folders in a data folder.
_FOLDERS = ("redis", "storage", "loras")


def keep_private(data: Path, *, from_group: bool) -> None:
    """Take other users' rights from what this process creates from now on, and from the folders that exist.

    A data folder that holds other things too keeps its rights; the service's own folders in it do not.

    Args:
        data: the data folder; a service on a bucket may be without.
        from_group: also take the group's rights; otherwise they are those that the umask leaves, so that users of
            one group can share a storage.
    """
    refused = _GROUP_AND_OTHERS if from_group else _OTHERS
    os.umask(os.umask(_GROUP_AND_OTHERS) | refused)
    try:
        names = {path.name for path in data.iterdir()}
        folders = [data / name for name in _FOLDERS if name in names]
        for folder in (data, *folders) if names <= {*_FOLDERS} else folders:
            mode = folder.stat().st_mode
            if mode & refused:
                folder.chmod(mode & 0o7777 & ~refused)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("other users may be able to read %s: its permissions could not be changed: %s", data, error)
