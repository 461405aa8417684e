"""The state that a run goes on from: written whole or not at all, read without executing anything."""

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from ssan.errors import UsageError, first_line
from ssan.files import open_regular, writing

# The largest network here has a state of less than 2 GB; whoever goes on has as much memory.
MOST_BYTES = 20_000_000_000
PARTS = {"state_dict", "optimizer_states", "loops", "callbacks", "rate", "position", "train_sums"}


class StateFile(TorchCheckpointIO):
    """How the Trainer writes and reads ``last/state.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the state beside ``path`` and give it that name once it is whole.

        :raises SsanError: the disk is full (code ``no_space``); the state of before is untouched.
        """
        # By way of memory: torch's own writer tells of a full disk as of a defect in itself.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with writing(path, "wb") as handle:
            handle.write(content.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Callable[..., Any] | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a state; only tensors and plain values are taken from it, whatever else the file holds.

        :raises UsageError: it is damaged, or no state of a run.
        """
        with open_regular(path, "the state of a run") as handle:
            try:
                # The file is a zip archive with a checksum of every tensor, which torch itself does not look at.
                with zipfile.ZipFile(handle) as archive:
                    _check_sizes(path, archive, os.fstat(handle.fileno()).st_size)
                    damaged = archive.testzip()
            except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
                raise _refused(path, str(error)) from error
            if damaged is not None:
                raise _refused(path, f"the checksum of {damaged} in it is wrong")
            handle.seek(0)
            try:
                state = torch.load(handle, map_location=map_location or "cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                raise _refused(path, "it holds something else than tensors and plain values") from error
            except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
                raise _refused(path, str(error)) from error
        if not isinstance(state, dict) or not state.keys() >= PARTS:
            raise _refused(path, "it lacks parts of a run's state")
        return state


def _check_sizes(path: Any, archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that would unpack to more than it is, or is mostly a hole, before anything of it is read."""
    said = sum(entry.file_size for entry in archive.infolist())
    if said > min(size, MOST_BYTES):
        raise _refused(path, f"it says that it unpacks to {said:,} bytes")
    # torch puts each tensor at a multiple of 64 bytes, with its name before it and once more in the end.
    around = sum(1024 + 3 * len(entry.filename) for entry in archive.infolist())
    if size > said + around + 65_536:
        raise _refused(path, f"it has {size:,} bytes, and says of {said:,} what they are")


def _refused(path: Any, reason: str) -> UsageError:
    return UsageError(
        "cannot resume: not a state that a run of ssan left, or damaged since "
        f"({first_line(reason or 'unreadable', 120)}). Copy the file again, or remove it: the run then starts "
        "from its beginning",
        path=str(path),
    )
