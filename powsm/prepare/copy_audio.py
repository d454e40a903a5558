"""Stage 3, when asked for: copies of the audio that stock ESPnet reads by itself.

The recipe reads audio inside its shards. ESPnet's own commands know arks (`flac.ark`)
and files (`wav`), so a copy costs the size of the corpus and gives `wav.scp` values
that both understand.
"""

import os
import shutil
from functools import partial
from pathlib import Path

from powsm.audio import SAMPLE_RATE, read_audio
from powsm.audio_files import encode, flac_rate
from powsm.errors import PowsmError
from powsm.files.audio_places import ARK_MARKER, AudioRef
from powsm.files.chunks import Chunk, map_in_order, plan_chunks, read_rows
from powsm.files.current import is_current, write_record
from powsm.files.datadir import read_scp, write_scp
from powsm.files.lock import owned
from powsm.files.whole import atomic_folder, naming, sha256_file, sweep_files

FORMATS = ("flac.ark", "wav")
DONE_FILE = "audio.done.json"  # beside wav.scp, as the record of what it names
_LENGTH_BYTES = 8  # of an ark entry's length


class CopyError(PowsmError):
    """Copies that were not made."""


def copy_set(data_dir: Path, audio_format: str, nj: int = 1) -> int | None:
    """Copy the audio of `data/<set>` to `audio/<format>` and point `wav.scp` there.

    Copies of one format never take the place of another's, and `wav.scp` is replaced
    when the new ones are whole: a set is either as before or done. FLAC at
    `SAMPLE_RATE` with one channel is copied byte by byte into arks.

    Args:
        data_dir: `data/<set>`.
        audio_format: one of `FORMATS`.
        nj: processes; the files are the same for any number.

    Returns:
        Utterances copied, or None when `wav.scp` names such copies already.

    Raises:
        AudioError: audio that cannot be read; nothing changes.
        CopyError: unknown format, or other utterances than `wav.scp` had.
        OwnedError: another process is writing this set.
    """
    if audio_format not in FORMATS:
        raise CopyError(f"audio format {audio_format!r}; use one of {FORMATS}")
    data_dir = Path(data_dir)
    wav_scp, done = data_dir / "wav.scp", data_dir / DONE_FILE
    copies = data_dir / "audio" / audio_format
    with owned(data_dir):
        sweep_files(data_dir)
        made_from = {"format": audio_format, "wav.scp": sha256_file(wav_scp)}
        if is_current(done, "audio", made_from):
            return None
        n_utts = sum(1 for _ in read_scp(wav_scp))
        # it was killed when all was done but for the record, or the record was lost
        if not _lies_in(wav_scp, copies):
            new_scp = _copy(data_dir, audio_format, copies, nj)
            if (n_copied := sum(1 for _ in read_scp(new_scp))) != n_utts:
                raise CopyError(f"{new_scp}: {n_copied} of {n_utts} utterances")
            os.replace(new_scp, wav_scp)
        _remove_other_copies(copies)
        made_from["wav.scp"] = sha256_file(wav_scp)
        write_record(done, "audio", made_from)
    return n_utts


def _copy(data_dir: Path, audio_format: str, copies: Path, nj: int) -> Path:
    """Write the folder of copies; gives the `wav.scp` in it that names them."""
    copy_chunk = _copy_to_ark if audio_format == "flac.ark" else _copy_to_wav
    with atomic_folder(copies) as folder:
        work = partial(copy_chunk, folder=folder, final=copies)
        parts = map_in_order(work, plan_chunks(data_dir, ["wav.scp"]), nj)
        write_scp(folder / "wav.scp", (row for part in parts for row in part))
    return copies / "wav.scp"


def _lies_in(wav_scp: Path, copies: Path) -> bool:
    """Whether `wav.scp` names copies of the folder, all of which are there."""
    places = (AudioRef.parse(location).path for _, location in read_scp(wav_scp))
    return all(p.is_relative_to(copies) and p.is_file() for p in map(Path, places))


def _remove_other_copies(copies: Path) -> None:
    """Those of another format, and those that version 0.1 put in `audio` itself."""
    for path in copies.parent.iterdir():
        if path.is_dir() and path != copies:
            shutil.rmtree(path)
        elif path != copies:
            path.unlink()


def _copy_to_ark(chunk: Chunk, *, folder: Path, final: Path) -> list[tuple[str, str]]:
    """One ark a chunk; returns its `wav.scp` rows."""
    name = f"{chunk.index:06d}.ark"
    rows = []
    with naming(final / name), open(folder / name, "wb") as ark:
        for utt_id, location in read_rows(chunk):
            ark.write(f"{utt_id} ".encode())
            rows.append((utt_id, f"{final / name}:{ark.tell()}"))
            data = _as_flac(location)
            ark.write(ARK_MARKER + bytes([_LENGTH_BYTES]))
            ark.write(len(data).to_bytes(_LENGTH_BYTES, "little"))
            ark.write(data)
        ark.flush()
        os.fsync(ark.fileno())
    return rows


def _copy_to_wav(chunk: Chunk, *, folder: Path, final: Path) -> list[tuple[str, str]]:
    """A file an utterance, in a folder a chunk."""
    name = f"{chunk.index:06d}"
    (folder / name).mkdir()
    rows = []
    for utt_id, location in read_rows(chunk):
        file_name = f"{name}/{utt_id}.wav"
        data = encode(read_audio(location), SAMPLE_RATE, "WAV")
        with naming(final / file_name):
            (folder / file_name).write_bytes(data)
        rows.append((utt_id, str(final / file_name)))
    return rows


def _as_flac(location: str) -> bytes:
    """FLAC bytes of an utterance, those of the shard where they fit as they are."""
    speech = read_audio(location)  # decoding is the check that the bytes are whole
    ref = AudioRef.parse(location)
    if ref.offset is not None and ref.size is not None:
        with open(ref.path, "rb") as file:
            file.seek(ref.offset)
            data = file.read(ref.size)
        if flac_rate(data) == SAMPLE_RATE:
            return data
    return encode(speech, SAMPLE_RATE)
