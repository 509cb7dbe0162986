"""Blocks of averaged data: in memory while they fit, else in a scratch file that nobody has to remove."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.visibilities import Block, PartialBins

__all__ = ["BlockStore"]

#: What of a block is kept aside; the rest of it is small, or follows from these.
STORED = ("rows", "time_index", "antenna1", "antenna2", "uvw_m", "data", "weight")
#: How the names of the arrays of its partial bins begin.
PARTIAL = "partial "


@dataclass(frozen=True, eq=False)
class _Spooled:
    """A block without its arrays, and where these are: name, type, shape and place in the file."""

    frame: Block
    arrays: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]


class BlockStore:
    """Blocks in the order they are added; read any number of times.

    Parameters
    ----------
    limit_bytes : float
        Above it all of them go to the disk.
    scratch : Path
        Folder of the scratch file. It has no name there: it is gone when the store is closed or the process
        ends, however that happens.
    """

    def __init__(self, limit_bytes: float, scratch: Path) -> None:
        self._limit, self._scratch = limit_bytes, scratch
        self._blocks: list[Block | _Spooled] = []
        self._file: IO[bytes] | None = None
        self._size = self.bytes_read = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def in_memory(self) -> bool:
        """Whether they fit."""
        return self._file is None

    @property
    def size_bytes(self) -> int:
        """Size of all blocks."""
        return self._size

    def add(self, block: Block) -> None:
        """Keep a block.

        Raises
        ------
        ResourceError
            If it has to be written and cannot be.
        """
        self._size += sum(values.nbytes for values in _arrays_of(block).values()) + block.flag.nbytes
        self._blocks.append(block)
        try:
            if self._file is None and self._size > self._limit:
                self._scratch.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115
                self._blocks = [self._written(b) for b in self._blocks if isinstance(b, Block)]
            elif self._file is not None:
                self._blocks[-1] = self._written(block)
        except OSError as error:
            raise ResourceError(
                f"averaged data of {self._size / 1e9:.2g} GB cannot be written ({error.strerror})",
                self._scratch,
                "free space there, or raise --memory-gb",
            ) from error

    def sort(self, order: list[int]) -> None:
        """Put the blocks into another order: numbers of the present one."""
        self._blocks = [self._blocks[k] for k in order]

    def __iter__(self) -> Iterator[Block]:
        for number in range(len(self)):
            yield self.block(number)

    def block(self, number: int) -> Block:
        """Return one block."""
        block = self._blocks[number]
        return block if isinstance(block, Block) else self._read(block)

    @property
    def n_rows(self) -> list[int]:
        """Rows of each block."""
        return [b.rows.size if isinstance(b, Block) else b.arrays[0][2][0] for b in self._blocks]

    def frames(self) -> Iterator[Block]:
        """Yield the blocks; without their arrays where these are on the disk."""
        for block in self._blocks:
            yield block if isinstance(block, Block) else block.frame

    def close(self) -> None:
        """Forget everything, and give the disk its room back."""
        self._blocks = []
        if self._file is not None:
            # What a full disk has not taken is not wanted any more.
            with suppress(OSError):
                self._file.close()

    def _written(self, block: Block) -> _Spooled:
        assert self._file is not None
        arrays, frame = [], {}
        for name, values in _arrays_of(block).items():
            arrays.append((name, values.dtype, values.shape, self._file.tell()))
            self._file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
            frame[name] = values[:0]
        self._file.flush()
        return _Spooled(_with_arrays(block, frame), tuple(arrays))

    def _read(self, spooled: _Spooled) -> Block:
        assert self._file is not None
        found: dict[str, NDArray[Any]] = {}
        for name, kind, shape, place in spooled.arrays:
            values = np.empty(shape, kind)
            if values.size:
                got = os.preadv(self._file.fileno(), [values.reshape(-1).view(np.uint8).data], place)
                if got != values.nbytes:
                    raise ResourceError(
                        "the scratch file has become shorter", self._scratch, "check the disk"
                    )
            self.bytes_read += values.nbytes
            found[name] = values
        return _with_arrays(spooled.frame, found)


def _arrays_of(block: Block) -> dict[str, NDArray[Any]]:
    """Arrays of a block by name, those of its partial bins among them."""
    found: dict[str, NDArray[Any]] = {name: getattr(block, name) for name in STORED}
    if block.bins is not None and block.bins.partial is not None:
        partial = block.bins.partial
        found |= {f"{PARTIAL}{x.name}": getattr(partial, x.name) for x in fields(partial)}
    return found


def _with_arrays(block: Block, found: dict[str, NDArray[Any]]) -> Block:
    """Give a block other arrays, by the names of :func:`_arrays_of`."""
    own: dict[str, Any] = {name: found[name] for name in STORED}
    own["flag"] = found["weight"] == 0
    of_bins: dict[str, Any] = {
        name.removeprefix(PARTIAL): values for name, values in found.items() if name.startswith(PARTIAL)
    }
    if of_bins and block.bins is not None:
        own["bins"] = replace(block.bins, partial=PartialBins(**of_bins))
    return replace(block, **own)
