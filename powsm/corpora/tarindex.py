"""Walk the headers of a tar file: where each member's bytes lie, without reading them.

The standard library's `tarfile` could do it, but spends ten times as long on a header,
and these walks touch sixteen million of them. What is read here: the ustar, GNU and pax
forms that `tarfile`, GNU tar and lhotse write.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypedDict

from powsm.errors import PowsmError

_BLOCK = 512  # bytes; headers and data are padded to this
_BUFFER = 4096  # bytes read at once: a small member, its header and the next header
_REGULAR = b"0\0" + b"7"
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}


class TarError(PowsmError):
    """A tar file that is cut off, damaged, compressed, or holds what it should not."""


class TarMember(NamedTuple):
    """A regular file inside a tar file."""

    name: str
    offset: int  # of its first byte, from the start of the tar file
    size: int  # bytes


class _PaxRecords(TypedDict, total=False):
    path: str
    size: int


class TarIndex:
    """The members of an uncompressed tar file, in order, and the bytes of small ones.

    Raises (while iterating):
        TarError: cut off, damaged, compressed, a link or device, or a member whose name
            leads out of the folder (`../x`, `/x`); names the member.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file: BinaryIO = open(self.path, "rb", buffering=_BUFFER)
        self._n_bytes = os.fstat(self._file.fileno()).st_size
        # no reading ahead: it would fetch the very audio that is stepped over
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def __enter__(self) -> "TarIndex":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[TarMember]:
        if compression := compression_of(self.path):
            raise TarError(
                f"{self.path}: compressed with {compression}; a member of a compressed "
                "tar has no place of its own: decompress the file"
            )
        position = 0
        long_name: str | None = None
        long_size: int | None = None
        while True:
            header = self._read(position, _BLOCK, "the end-of-archive mark")
            if not header[0] and not header.strip(b"\0"):
                return
            kind, name, size = self._parse(header, position)
            position += _BLOCK
            n_padded = -(-size // _BLOCK) * _BLOCK
            if kind in b"xL":  # more about the next member
                data = self._read(position, size, "the long name of a member")
                if kind == b"L":
                    long_name = self._text(data.rstrip(b"\0"), position)
                else:
                    records = self._pax_records(data, position)
                    long_name = records.get("path", long_name)
                    long_size = records.get("size", long_size)
                position += n_padded
                continue
            if kind == b"g":  # defaults for all members; names and sizes have none
                position += n_padded
                continue
            if long_name is not None:
                name = long_name
            if long_size is not None:
                size, n_padded = long_size, -(-long_size // _BLOCK) * _BLOCK
            long_name = long_size = None
            _check_name(self.path, name)
            if kind == b"5":  # a folder has no bytes
                continue
            if kind not in _REGULAR:
                what = {b"1": "a hard link", b"2": "a symbolic link"}.get(kind)
                raise TarError(
                    f"{self.path}: member {name!r} is {what or f'of type {kind!r}'}, "
                    "expected a regular file; write the shard anew"
                )
            if position + size > self._n_bytes:
                raise TarError(
                    f"{self.path}: cut off inside member {name!r}, which ends at byte "
                    f"{position + size:,} of {self._n_bytes:,}; fetch the file again"
                )
            yield TarMember(name, position, size)
            position += n_padded

    def read(self, member: TarMember) -> bytes:
        """All bytes of a member; cheap for a small one just met."""
        return self._read(member.offset, member.size, f"member {member.name!r}")

    def _read(self, position: int, size: int, what: str) -> bytes:
        self._file.seek(position)
        data = self._file.read(size)
        if len(data) < size:
            raise TarError(
                f"{self.path}: cut off at byte {self._n_bytes:,} where {what} was "
                "expected; fetch the file again"
            )
        return data

    def _parse(self, header: bytes, position: int) -> tuple[bytes, str, int]:
        """Type, name and size of a member."""
        try:
            stored = header[148:156]
            checksum = int(stored.strip(b"\0 "), 8)
            if header[124] & 0x80:  # GNU: sizes past 8 GiB are binary
                size = int.from_bytes(header[125:136], "big")
            else:
                size = int(header[124:136].strip(b"\0 ") or b"0", 8)
        except ValueError:
            checksum = size = -1
        # The checksum is the sum of all bytes, its own eight counted as spaces. The low
        # half of Adler-32 is one plus a sum, modulo 65521, at the speed of C.
        others = (zlib.adler32(header) & 0xFFFF) - (zlib.adler32(stored) & 0xFFFF)
        if (others + 8 * ord(" ") - checksum) % 65521 or checksum < 0:
            raise TarError(
                f"{self.path}: damaged or not a tar file: no member header at byte "
                f"{position:,}; fetch the file again"
            )
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0" and header[345]:
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        return header[156:157], self._text(name, position), size

    def _pax_records(self, data: bytes, position: int) -> _PaxRecords:
        """Path and size from lines like `18 path=long.flac\\n`; 18 is the length."""
        records: _PaxRecords = {}
        while data:
            digits, _, _ = data.partition(b" ")
            try:
                length = int(digits)
                key, value = data[len(digits) + 1 : length - 1].split(b"=", 1)
                if key == b"path":
                    records["path"] = self._text(value, position)
                elif key == b"size":
                    records["size"] = int(value)
            except ValueError as err:
                raise TarError(
                    f"{self.path}: damaged extended header at byte {position:,}"
                ) from err
            data = data[length:]
        return records

    def _text(self, data: bytes, position: int) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as err:
            raise TarError(
                f"{self.path}: the member name at byte {position:,} is not UTF-8"
            ) from err


def compression_of(path: Path) -> str | None:
    """The compression of a file, by its first bytes; None if there is none."""
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, name in _COMPRESSIONS.items():
        if start.startswith(magic):
            return name
    return None


def _check_name(path: Path, name: str) -> None:
    leads_up = ".." in name and ".." in name.split("/")
    if not name or name.startswith("/") or leads_up or "\0" in name:
        raise TarError(
            f"{path}: member name {name!r} leads out of the folder of the shard; do "
            "not use this file"
        )
