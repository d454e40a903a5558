"""Stage 3, when asked for: copies of the audio that stock ESPnet reads by itself.

The recipe reads audio inside its shards. ESPnet's own commands know arks (`flac.ark`)
and files (`wav`), so a copy costs the size of the corpus and gives `wav.scp` values
that both understand.
"""

import json
import os
import shutil
from functools import partial
from io import BytesIO
from pathlib import Path

import soundfile

from powsm.audio import ARK_MARKER, SAMPLE_RATE, AudioRef, read_audio
from powsm.files.chunks import Chunk, map_in_order, plan_chunks, read_rows
from powsm.files.datadir import write_scp
from powsm.files.whole import atomic_write, sha256_file

FORMATS = ("flac.ark", "wav")
DONE_FILE = "audio.done.json"
_LENGTH_BYTES = 8  # of an ark entry's length


def copy_set(data_dir: Path, audio_format: str, nj: int = 1) -> int | None:
    """Copy the audio of `data/<set>` to its `audio` folder and point `wav.scp` there.

    `wav.scp` is replaced last, so a set is either as before or done. FLAC at
    `SAMPLE_RATE` with one channel is copied byte by byte into arks.

    Args:
        data_dir: `data/<set>`.
        audio_format: one of `FORMATS`.
        nj: processes; the files are the same for any number.

    Returns:
        Utterances copied, or None when `wav.scp` names such copies already.

    Raises:
        AudioError: audio that cannot be read; nothing changes.
        ValueError: unknown format.
    """
    if audio_format not in FORMATS:
        raise ValueError(f"audio format {audio_format!r}; use one of {FORMATS}")
    data_dir = Path(data_dir)
    wav_scp, done = data_dir / "wav.scp", data_dir / DONE_FILE
    if done.is_file() and json.loads(done.read_text()) == {
        "format": audio_format,
        "wav.scp": sha256_file(wav_scp),
    }:
        return None
    final = data_dir / "audio"
    fresh = data_dir / ".audio.copying"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        copy_chunk = _copy_to_ark if audio_format == "flac.ark" else _copy_to_wav
        work = partial(copy_chunk, folder=fresh, final=final)
        parts = map_in_order(work, plan_chunks(data_dir, ["wav.scp"]), nj)
        new_scp = fresh / "wav.scp"
        n_utts = write_scp(new_scp, (row for part in parts for row in part))
        # the old copies may be the source of the new ones: they go last
        old = data_dir / ".audio.old"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.rename(final, old)
        os.rename(fresh, final)
        os.replace(final / "wav.scp", wav_scp)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    with atomic_write(done) as file:
        json.dump({"format": audio_format, "wav.scp": sha256_file(wav_scp)}, file)
    return n_utts


def _copy_to_ark(chunk: Chunk, *, folder: Path, final: Path) -> list[tuple[str, str]]:
    """One ark a chunk; returns its `wav.scp` rows."""
    name = f"{chunk.index:06d}.ark"
    rows = []
    with open(folder / name, "wb") as ark:
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
        soundfile.write(
            folder / file_name, read_audio(location), SAMPLE_RATE, subtype="PCM_16"
        )
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
        with soundfile.SoundFile(BytesIO(data)) as sound:
            if sound.format == "FLAC" and sound.samplerate == SAMPLE_RATE:
                return data
    buffer = BytesIO()
    soundfile.write(buffer, speech, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
