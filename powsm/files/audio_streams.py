"""FLAC, Ogg and MP3: the streams in a file, and whether their bytes are whole.

They are read frame by frame or page by page, without decoding.

Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), ISO 11172-3 and the Xing/LAME tag (MP3).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

Buffer = bytes | mmap


class ContainerFault(ValueError):
    """Bytes that are not what their headers promise; the message has no file name."""


@dataclass(frozen=True)
class Part:
    """Bytes that one decoder reads from their beginning to their end.

    Attributes:
        data: the bytes.
        n_samples: promised for each channel; None where nothing is promised.
        is_doubtful: the bytes do not bear the header out: only decoding can say.
        slack: samples of the promise that a decoder may leave out.
        is_common: libsndfile knows the format; else it takes FFmpeg.
    """

    data: Buffer
    n_samples: int | None = None
    is_doubtful: bool = False
    slack: int = 0
    is_common: bool = True


def refuse_rest(data: Buffer, at: int, name: str) -> None:
    """Refuse bytes behind the end of a file, unless they are zeros or a tag."""
    tail = data[at:]
    if tail.strip(b"\0") and not tail.startswith((b"TAG", b"ID3", b"APETAGEX")):
        raise ContainerFault(
            f"{len(tail)} bytes behind the end of the {name} belong to nothing; they "
            "may be a second file, joined to the first: split them"
        )


def refuse_cut(n_promised: int, n_there: int, what: str = "bytes of samples") -> None:
    raise ContainerFault(
        f"cut off: the header promises {n_promised} {what}, the file has {n_there}; "
        "get it again"
    )


# how every FLAC file begins: a block of type 0 and 34 bytes, the last one or not
_FLAC_HEADS = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")


def flac_parts(data: Buffer) -> list[Part]:
    begins, at = [], len(data)
    # from the end, which is twenty times as fast in CPython
    while (at := max(data.rfind(head, 0, at) for head in _FLAC_HEADS)) > 0:
        begins.insert(0, at)
    begins.insert(0, 0)
    if len(begins) == 1:
        return [_flac_part(data)]
    ends = [*begins[1:], len(data)]
    return [_flac_part(data[a:b]) for a, b in zip(begins, ends, strict=True)]


def _flac_part(data: Buffer) -> Part:
    n_samples = int.from_bytes(data[21:26], "big") & (1 << 36) - 1
    ends = []
    # the last frame is found by its mark, which other bytes may have by chance
    for end in _flac_ends(data):
        if end == n_samples:
            return Part(data, n_samples)
        ends.append(end)
    if ends and ends[0] > n_samples:  # the length was left open, or is too small
        field = int.from_bytes(data[18:26], "big") >> 36 << 36 | ends[0]
        filled = data[:18] + field.to_bytes(8, "big") + data[26:]
        return Part(filled, ends[0], is_doubtful=True)
    return Part(data, n_samples, is_doubtful=True)


def _flac_ends(data: Buffer) -> Iterator[int]:
    """Samples up to the end of the last frames, as their own headers count them."""
    at = len(data)
    for _ in range(8):
        fixed = data.rfind(b"\xff\xf8", 0, at)
        at = max(fixed, data.rfind(b"\xff\xf9", max(fixed, 0), at))
        if at < 42:
            return
        if (end := _flac_frame_end(data[at : at + 16], data)) is not None:
            yield end


def _flac_frame_end(head: bytes, data: Buffer) -> int | None:
    """Last sample of a frame + 1; None if these bytes do not begin a frame."""
    if len(head) < 16 or head[3] & 1:
        return None
    n_long = 0  # bytes of the number, as in UTF-8
    while n_long < 8 and head[4] & 0x80 >> n_long:
        n_long += 1
    if n_long == 1 or n_long == 8:
        return None
    number = head[4] & 0x7F >> n_long
    for byte in head[5 : 4 + max(n_long, 1)]:
        number = number << 6 | byte & 0x3F
    at, code = 4 + max(n_long, 1), head[2] >> 4
    size = 192 if code == 1 else 576 << code - 2 if 2 <= code < 6 else 0
    if code in (6, 7):
        size = int.from_bytes(head[at : at + code - 5], "big") + 1
        at += code - 5
    elif code >= 8:
        size = 256 << code - 8
    at += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if not size or _crc8(head[:at]) != head[at]:
        return None
    largest = int.from_bytes(data[10:12], "big")
    return (number if head[1] & 1 else number * largest) + size


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


_BITS_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> bytes:
    """The checksum of a page: that of zlib with all bits in the other order."""
    crc = zlib.crc32(page.translate(_BITS_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "little").translate(_BITS_TURNED)[::-1]


def ogg_parts(data: Buffer) -> list[Part]:
    begins: list[int] = []  # of the chained streams
    serials: list[set[int]] = []
    last: dict[int, tuple[int, int]] = {}  # serial -> number and granule of its page
    ends: list[int] = []
    at, was_first = 0, False
    while at < len(data):
        if data[at : at + 4] != b"OggS":
            refuse_rest(data, at, "Ogg stream")
            break
        n_segments = data[at + 26] if at + 27 <= len(data) else 0
        n_body = sum(data[at + 27 : at + 27 + n_segments])
        end = at + 27 + n_segments + n_body
        if at + 27 > len(data) or end > len(data):
            refuse_cut(end - at, len(data) - at, "bytes of its last page")
        page = data[at:end]
        flags, granule, serial, number = struct.unpack_from("<xBqII", page, 4)
        if _ogg_crc(page[:22] + bytes(4) + page[26:]) != page[22:26]:
            raise ContainerFault(f"damaged: the Ogg page at byte {at} has a wrong CRC")
        if flags & 2:
            if not was_first:
                begins.append(at)
                serials.append(set())
                ends.append(0)
            serials[-1].add(serial)
        elif serial not in last or number != last[serial][0] + 1:
            raise ContainerFault(f"damaged: an Ogg page is missing before byte {at}")
        was_first = bool(flags & 2)
        last[serial] = number, granule
        ends[-1] = max(ends[-1], granule)
        at = end
    return _ogg_parts(data, begins, serials, ends)


def _ogg_parts(
    data: Buffer, begins: list[int], serials: list[set[int]], ends: list[int]
) -> list[Part]:
    bounds = zip(begins, [*begins[1:], len(data)], serials, ends, strict=True)
    parts = []
    for begin, end, streams, granule in bounds:
        piece = data if len(begins) == 1 else data[begin:end]
        head = piece[28:64]
        n_samples = None
        if head.startswith(b"\x01vorbis"):
            n_samples = granule
        elif head.startswith(b"OpusHead"):
            skipped = int.from_bytes(head[10:12], "little")
            rate = int.from_bytes(head[12:16], "little")
            if rate in (8000, 12000, 16000, 24000, 48000):  # libsndfile keeps these
                n_samples = max(granule - skipped, 0) * rate // 48000
        is_common = len(streams) == 1 and (
            n_samples is not None or head.startswith(b"OpusHead")
        )
        parts.append(Part(piece, n_samples, is_common=is_common))
    return parts


def end_of_id3(data: Buffer, at: int) -> int:
    """Where the ID3v2 tags that begin here end."""
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if data[at + 5] & 0x10 else 0)
    return at


_RATES_HZ = {
    3: (44100, 48000, 32000),
    2: (22050, 24000, 16000),
    0: (11025, 12000, 8000),
}
_KBIT_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


@dataclass(frozen=True)
class Mp3Frame:
    """A frame of layer III: how many bytes, how many samples, of what kind."""

    n_bytes: int
    n_samples: int
    rate: int
    side_info: int  # bytes from the frame's begin to the end of its side information

    @classmethod
    def at(cls, data: Buffer, at: int) -> "Mp3Frame | None":
        if len(data) < at + 4:
            return None
        head = int.from_bytes(data[at : at + 4], "big")
        version, layer = head >> 19 & 3, head >> 17 & 3
        bitrate, rate = head >> 12 & 15, head >> 10 & 3
        if head >> 21 != 0x7FF or version == 1 or layer != 1:
            return None
        if bitrate in (0, 15) or rate == 3:
            return None
        is_1, is_mono = version == 3, head >> 6 & 3 == 3
        hz, kbit = _RATES_HZ[version][rate], (_KBIT_1 if is_1 else _KBIT_2)[bitrate]
        n_bytes = (144_000 if is_1 else 72_000) * kbit // hz + (head >> 9 & 1)
        side = (17 if is_mono else 32) if is_1 else (9 if is_mono else 17)
        return cls(n_bytes, 1152 if is_1 else 576, hz, 4 + side)


def mp3_parts(data: Buffer) -> list[Part]:
    """Frame after frame; a new stream begins at a tag or where a count is full."""
    begins = [0]
    counts = [[0, 0, 0]]  # of each stream: samples there, samples promised, left out
    at = end_of_id3(data, 0)
    while at < len(data):
        if data[at : at + 3] == b"ID3" and end_of_id3(data, at) < len(data):
            begins.append(at)
            counts.append([0, 0, 0])
            at = end_of_id3(data, at)
            continue
        frame = Mp3Frame.at(data, at)
        if frame is None:
            if at + 3 < len(data) and data[at : at + 3] == b"TAG":
                at += 128
                continue
            refuse_rest(data, at, "MP3 frames")
            break
        if at + frame.n_bytes > len(data):
            refuse_cut(frame.n_bytes, len(data) - at, "bytes of its last frame")
        tag = _xing(data[at : at + frame.n_bytes], frame)
        full = counts[-1][1] and counts[-1][0] >= counts[-1][1]
        if (tag is not None or full) and counts[-1][0]:
            begins.append(at)
            counts.append([0, 0, 0])
        if tag is None:
            counts[-1][0] += frame.n_samples
        else:
            counts[-1][1:] = tag
        at += frame.n_bytes
    parts = []
    for begin, end, count in zip(begins, [*begins[1:], len(data)], counts, strict=True):
        n_there, n_promised, n_left_out = count
        if n_there < n_promised:
            refuse_cut(n_promised, n_there, "samples")
        piece = data if len(begins) == 1 else data[begin:end]
        # without a tag a decoder may leave out its own delay and a first frame
        slack = 0 if n_promised else 2 * 1152
        n_samples = max(n_there - n_left_out, 0)
        parts.append(Part(piece, n_samples, is_doubtful=not n_promised, slack=slack))
    return parts


def _xing(frame: bytes, kind: Mp3Frame) -> tuple[int, int] | None:
    """(samples, samples of them that are no sound) of a frame that is a table."""
    at = kind.side_info
    if frame[at : at + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    if not flags & 1:
        return 0, 0
    n_frames = int.from_bytes(frame[at + 8 : at + 12], "big")
    at += 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
    gaps = int.from_bytes(frame[at + 21 : at + 24], "big")  # 12 bits before, 12 behind
    return n_frames * kind.n_samples, (gaps >> 12) + (gaps & 0xFFF)
