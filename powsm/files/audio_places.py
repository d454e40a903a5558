"""Where the encoded audio of an utterance lies, and its bytes.

A `wav.scp` value is a plain audio file or, for the corpora that come as tar shards,
`<shard>.tar:<offset>:<size>`: the bytes of one member, read in place. The tar file is
not parsed and nothing is unpacked. `<archive>.ark:<offset>` is ESPnet's own form, for
copies made with `--audio_format flac.ark`.
"""

import os
import re
import resource
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from powsm.audio_files import AudioError, printable

_IN_SHARD = re.compile(r"(?P<path>.+\.tar):(?P<offset>\d+):(?P<size>\d+)")
_IN_ARK = re.compile(r"(?P<path>.+\.ark):(?P<offset>\d+)")
ARK_MARKER = b"AUDIO"  # then the width of the length in one byte, the length, the audio

# Shards kept open by one process: a corpus has hundreds, and a network's file system
# takes a round trip for each that is opened again.
_OPEN_FILES = 2048
_SHARE_OF_LIMIT = 0.5  # of the files that a process may have open, at most


@dataclass(frozen=True, slots=True)
class AudioRef:
    """Where the encoded audio of one utterance lies.

    Attributes:
        path: an audio file, or a tar shard or ark that holds it.
        offset: first byte of the audio inside a shard, or of its entry in an ark;
            None for a plain file.
        size: bytes of audio inside a shard; None for a plain file and for an ark.

    >>> AudioRef.parse("mls_shar/dev/recording.000000.tar:512:48210").offset
    512
    >>> str(AudioRef.parse("clips/a.flac"))
    'clips/a.flac'
    """

    path: Path
    offset: int | None = None
    size: int | None = None

    @classmethod
    def parse(cls, location: str) -> Self:
        """The reference that a `wav.scp` value spells."""
        if match := _IN_SHARD.fullmatch(location):
            return cls(Path(match["path"]), int(match["offset"]), int(match["size"]))
        if match := _IN_ARK.fullmatch(location):
            return cls(Path(match["path"]), int(match["offset"]))
        return cls(Path(location))

    def __str__(self) -> str:
        if self.offset is None:
            return str(self.path)
        if self.size is None:
            return f"{self.path}:{self.offset}"
        return f"{self.path}:{self.offset}:{self.size}"


def location_in_shard(path: Path, offset: int, size: int) -> str:
    """The `wav.scp` value of `size` bytes of audio, `offset` bytes into a shard."""
    return f"{path}:{offset}:{size}"


class _OpenFile:
    """A file descriptor that closes when the last user lets go of it."""

    def __init__(self, path: Path):
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self, close=os.close) -> None:  # os may be gone when Python ends
        if hasattr(self, "fd"):
            close(self.fd)


def _most_open() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _OPEN_FILES
    return min(_OPEN_FILES, int(limit * _SHARE_OF_LIMIT))


# Reads name their offset (pread), so threads and forked workers may share a descriptor.
@lru_cache(maxsize=_most_open())
def _open_file(path: Path) -> _OpenFile:
    return _OpenFile(path)


def read_bytes(ref: AudioRef, location: str) -> bytes:
    """The encoded audio of one utterance.

    Args:
        ref: where it lies.
        location: its `wav.scp` value, for errors.

    Raises:
        AudioError: no such file, or bytes beyond its end.
    """
    try:
        if ref.offset is None:
            return ref.path.read_bytes()
        try:
            file = _open_file(ref.path)
        except FileNotFoundError:
            # a file may be called as if it were a place in an archive
            return Path(location).read_bytes()
        if ref.size is None:
            ref = _entry_of_ark(ref, os.pread(file.fd, 16, ref.offset), location)
        data = os.pread(file.fd, ref.size, ref.offset)
        while 0 < len(data) < ref.size:  # the system may hand over less than asked for
            more = os.pread(file.fd, ref.size - len(data), ref.offset + len(data))
            if not more:
                break
            data += more
    except OSError as err:
        raise AudioError(
            f"{printable(location)}: cannot be read ({err.strerror})"
        ) from err
    if len(data) < ref.size:
        raise AudioError(
            f"{printable(location)}: found {len(data)} of {ref.size} bytes; the file "
            "is shorter than when it was indexed: make it again, then rerun stage 1"
        )
    return data


def _entry_of_ark(ref: AudioRef, head: bytes, location: str) -> AudioRef:
    """Where the audio of an ark's entry lies, from the bytes at its offset."""
    start = len(ARK_MARKER) + 1
    if not head.startswith(ARK_MARKER) or len(head) < start:
        raise AudioError(
            f"{printable(location)}: no audio of ESPnet's ark format begins here"
        )
    width = head[start - 1]
    size = int.from_bytes(head[start : start + width], "little")
    return AudioRef(ref.path, ref.offset + start + width, size)
