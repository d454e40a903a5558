"""What the headers of an audio file promise, held against the bytes that are there.

Decoders are forgiving: they stop at the end of the first of two joined streams, where a
file was cut, or at a packet that is damaged, and return what they have. `parts_of`
reads the structure of a file without decoding, so that every byte is either handed to
a decoder or the file is refused. Here are the forms of one header with a size, WAV and
its like; those of many frames are in `powsm.files.audio_streams`.

Sources: Microsoft's RIFF and EBU Tech 3306 (WAV, RF64), Apple's AIFF and CAF.
"""

import struct
from collections.abc import Callable

from powsm.files.audio_streams import (
    Buffer,
    ContainerFault,
    Mp3Frame,
    Part,
    end_of_id3,
    flac_parts,
    mp3_parts,
    ogg_parts,
    refuse_cut,
    refuse_rest,
)

_UNKNOWN = 0xFFFFFFFF  # a size that the writer left open
# tags whose blocks hold a known number of samples: PCM, float, A-law, µ-law, extensible
_PLAIN = frozenset({1, 3, 6, 7, 0xFFFE})


def parts_of(data: Buffer) -> list[Part]:
    """The streams that are joined in a file, nearly always one.

    Raises:
        ContainerFault: cut off, damaged, or bytes that belong to nothing.
    """
    begin = end_of_id3(data, 0)
    for magic, read in _READERS:
        if data[begin : begin + len(magic)] == magic:
            return read(data[begin:] if begin else data)
    if Mp3Frame.at(data, begin):
        return mp3_parts(data)
    return [Part(data, is_common=False)]


def _wav(data: Buffer) -> list[Part]:
    if data[8:12] != b"WAVE":
        return [Part(data, is_common=False)]
    at, align, tag, wide = 12, 0, 0, None
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        begin = at + 8
        if name != b"data" and begin + size > len(data):
            refuse_cut(begin + size, len(data), "bytes of headers")
        if name == b"ds64":
            wide = struct.unpack_from("<Q", data, begin + 8)[0]
        if name == b"fmt " and size >= 16:
            tag, align = struct.unpack_from("<H10xH", data, begin)
        if name == b"data":
            if size == _UNKNOWN and wide is not None:
                size = wide
            return _samples_of_wav(data, begin, size, align if tag in _PLAIN else 0)
        at = begin + size + size % 2
    raise ContainerFault("no samples: there is no chunk 'data'; remove this file")


def _samples_of_wav(data: Buffer, begin: int, size: int, align: int) -> list[Part]:
    n_behind = len(data) - begin
    n_samples = size // align if align else None
    if size == _UNKNOWN:  # written to a pipe
        return [Part(data, n_behind // align if align else None, is_common=bool(align))]
    if size == 0 and n_behind and not _are_chunks(data, begin):
        filled = data[: begin - 4] + struct.pack("<I", n_behind) + data[begin:]
        return [Part(filled, n_behind // align if align else None)]
    if size > n_behind:
        refuse_cut(size, n_behind)
    end = begin + size
    # the pad byte of an odd size is often left out
    ends = [end + size % 2, end]
    if not any(_are_chunks(data, end) for end in ends):
        refuse_rest(data, ends[0], "samples")
    return [Part(data, n_samples, is_common=bool(align))]


def _are_chunks(data: Buffer, at: int) -> bool:
    """Whether chunks of notes, and nothing else, go from here to the end."""
    while at < len(data):
        name = data[at : at + 4]
        if len(data) - at < 8:
            return not data[at:].strip(b"\0")
        if name in (b"RIFF", b"RF64", b"data") or not name.isascii():
            return False
        if not all(32 <= byte < 127 for byte in name):
            return False
        size = struct.unpack_from("<I", data, at + 4)[0]
        at += 8 + size + size % 2
    return at <= len(data) + 1


def _aiff(data: Buffer) -> list[Part]:
    at, n_samples, n_bytes = 12, None, None
    while at + 8 <= len(data):
        name, size = struct.unpack_from(">4sI", data, at)
        if name == b"COMM":
            n_samples = struct.unpack_from(">I", data, at + 10)[0]
        if name == b"SSND":
            n_bytes = size
            if at + 8 + size > len(data):
                refuse_cut(size - 8, len(data) - at - 16)
        if name == b"FORM":
            refuse_rest(data, at, "samples")
        at += 8 + size + size % 2
    if n_samples and n_bytes is None:
        refuse_cut(n_samples, 0, "samples")
    return [Part(data, n_samples)]


def _au(data: Buffer) -> list[Part]:
    begin, size = struct.unpack_from(">II", data, 4)
    if size not in (_UNKNOWN, len(data) - begin):
        if begin + size > len(data):
            refuse_cut(size, len(data) - begin)
        refuse_rest(data, begin + size, "samples")
    return [Part(data)]


def _sphere(data: Buffer) -> list[Part]:
    for line in data[:1024].split(b"\n"):
        words = line.split()
        if len(words) == 3 and words[0] == b"sample_count":
            return [Part(data, int(words[2]), is_doubtful=True)]
    return [Part(data)]


def _caf(data: Buffer) -> list[Part]:
    at = 8
    while at + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, at)
        at += 12
        if name == b"data" and size == -1:  # the last chunk, as long as the file
            return [Part(data)]
        if size < 0 or at + size > len(data):
            refuse_cut(size, len(data) - at, f"bytes of {name.decode('latin-1')!r}")
        at += size
    refuse_rest(data, at, "chunks")
    return [Part(data)]


def _w64(data: Buffer) -> list[Part]:
    at = 40
    while at + 24 <= len(data):
        size = struct.unpack_from("<Q", data, at + 16)[0]  # these 24 bytes included
        if size < 24 or at + size > len(data):
            refuse_cut(size, len(data) - at, "bytes of a chunk")
        at += -(-size // 8) * 8
    return [Part(data)]


_READERS: tuple[tuple[bytes, Callable[[Buffer], list[Part]]], ...] = (
    (b"RIFF", _wav),
    (b"RF64", _wav),
    (b"BW64", _wav),
    (b"FORM", _aiff),
    (b".snd", _au),
    (b"NIST_1A", _sphere),
    (b"caff", _caf),
    (b"riff", _w64),
    (b"fLaC", flac_parts),
    (b"OggS", ogg_parts),
)
