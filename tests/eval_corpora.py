"""The evaluation corpora in little, each in the layout in which its users have it.

Nothing is said in them: the audio is tones. Labels are few and known, and every layout
has the oddities of the real one.
"""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile
import yaml
from praatio import textgrid
from shar_builder import make_cut, members_of, write_cuts, write_tar

SECONDS = 1.0


def tone(seconds: float = SECONDS, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    """int16 (n_samples, channels): a quiet tone; a second channel is silent."""
    time = np.arange(round(seconds * rate)) / rate
    samples = np.zeros((len(time), channels), np.int16)
    samples[:, 0] = 3000 * np.sin(2 * np.pi * 220 * time)
    return samples


def write_wav(path: Path, rate: int = 16_000, form: str = "WAV", **changes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path, tone(rate=rate, **changes), rate, format=form, subtype="PCM_16"
    )


def write_grid(path: Path, **tiers: list[tuple[float, float, str]]) -> None:
    """A TextGrid of Praat's long form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = textgrid.Textgrid()
    for name, intervals in tiers.items():
        grid.addTier(textgrid.IntervalTier(name, intervals, 0, SECONDS))
    grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)


def spread(labels: str) -> list[tuple[float, float, str]]:
    """Labels between `|`, of equal length, over a second."""
    names = labels.split("|")
    step = SECONDS / len(names)
    return [(n * step, (n + 1) * step, name) for n, name in enumerate(names) if name]


def make_timit(root: Path) -> Path:
    """Two sentences: one as the LDC sells them (SPHERE), one as converted copies."""
    speaker = root / "TIMIT/TRAIN/DR1/FCJF0"
    write_wav(speaker / "SA1.WAV", form="NIST")
    (speaker / "SA1.PHN").write_text(
        "0 3050 h#\n3050 4559 sh\n4559 5723 iy\n5723 6642 dcl\n6642 9000 jh\n"
    )
    (speaker / "SA1.TXT").write_text("0 46797 She had your dark suit.\n")
    other = root / "TIMIT/TEST/DR3/MPKT0"
    write_wav(other / "SX9.WAV.wav")
    (other / "SX9.PHN").write_text("0 100 h#\n100 8000 ax-h\n8000 16000 q\n")
    (other / "SX9.TXT").write_text("0 46797 A.\n")
    (speaker / "SA2.PHN").write_text("0 3050 sh\n")  # without audio
    return root


def make_buckeye(root: Path) -> Path:
    """A track of 30 s: two utterances, the interviewer between, a name masked."""
    track = root / "s01/s0101a"
    track.mkdir(parents=True)
    soundfile.write(track / "s0101a.wav", tone(30.0), 16_000)
    header = "signal s0101a\ntype 0\ncolor 122\nseparator ;\nnfields 1\n#\n"
    (track / "s0101a.phones").write_text(
        header + "  0.5  122 {B_TRANS}\n  1.0  122 hh\n  1.5  122 ay; *\n"
        "  1.9  122 SIL\n  2.5  122 nx\n  6.0  122 IVER\n  6.8  122 ih\n"
        "  7.0  122 <EXCLUDE-name>\n  7.3  122 k\n  9.0  122 SIL\n 10.0  122 zz\n"
        "  10.0  122\n 12.0  122 SIL\n 22.0  122 aa\n 22.4  122 NOISE\n 30.0  122 m\n"
    )
    (track / "s0101a.words").write_text(
        header + "  0.5  122 {B_TRANS}; B\n  1.5  122 hi; hh ay; hh ay; UH\n"
        "  1.9  122 <SIL>\n  2.5  122 n'; nx; nx; UH\n"
    )
    return root


def make_buckeye_shar(root: Path) -> Path:
    """anyspeech's copy: IPA in `text`, orthography in `custom`; a cut without audio."""
    cuts = [make_cut(f"s10_{number}") for number in ("4829-0", "4830-1", "4831-2")]
    for cut in cuts:
        (supervision,) = cut["supervisions"]
        supervision |= {
            "text": "haɪ ɾ̃",
            "custom": {"orthographic": "hi n' "},
            "speaker": None,
        }
    folder = root / "buckeye_shar"
    write_cuts(folder / "cuts.000000.jsonl.gz", cuts)
    members = [member for cut in cuts[:2] for member in members_of(cut)]
    nothing = [(f"{cuts[2]['id']}.{what}", b"") for what in ("nodata", "nometa")]
    write_tar(folder / "recording.000000.tar", members + nothing)
    return root


def make_l2arctic(root: Path) -> Path:
    """Two sentences at 44.1 kHz: phones replaced, deleted, added, not identified."""
    speaker = root / "ABA"
    labels = "sil|DH,D,s|AH0|K,sil,d|sil,AX,a|AE1,EH*,s|T,ERR,s|sp"
    for number, phones in enumerate((labels, "W|IY1|sil")):
        name = f"arctic_a000{number + 1}"
        write_wav(speaker / f"wav/{name}.wav", rate=44_100)
        write_grid(
            speaker / f"annotation/{name}.TextGrid",
            words=spread("the cat"),
            phones=spread(phones),
        )
        (speaker / "transcript").mkdir(exist_ok=True)
        (speaker / f"transcript/{name}.txt").write_text("The cat.\n")
    write_grid(root / "suitcase_corpus/annotation/aba.TextGrid", phones=spread("a|b"))
    return root


def make_epadb(root: Path) -> Path:
    """Phrases of two speakers: UTF-16, items misnumbered, a label nobody knows."""
    first = root / "train/spkr14"
    write_wav(first / "waveforms/spkr14_1.wav", rate=22_050)
    grid = first / "annotations_1/spkr14_1.TextGrid"
    write_grid(
        grid, words=spread("a|tea"), annotation=spread("sil|AX|Th+|IY1*|TH|0|err|sp")
    )
    text = grid.read_text(encoding="utf-8").replace("item [2]", "item [1]")
    grid.write_bytes(text.encode("utf-16"))
    second = root / "test/spkr103"
    for number, labels in ((2, "CH|IY"), (3, "QQ|IY"), (4, "B|IY")):
        write_grid(
            second / f"annotations_1/spkr103_{number}.TextGrid",
            words=spread("bee"),
            annotation=spread(labels),
        )
    for number in (2, 3):
        write_wav(second / f"waveforms/spkr103_{number}.wav")
    return root


def make_koellabs(root: Path) -> Path:
    """A KoelLabs repository: two splits, of which one clip is longer than 20 s."""
    (root / "data").mkdir(parents=True)
    for split, rows in (
        ("train", [("lɛtspleɪsɔkə", "let's play soccer", 1.0)]),
        ("test", [("ʃiː", " she ", 1.0), ("m", "m", 20.1)]),
    ):
        table = {"audio": [], "ipa": [], "text": [], "speaker_code": []}
        for ipa, text, seconds in rows:
            file = io.BytesIO()
            soundfile.write(file, tone(seconds), 16_000, format="WAV")
            table["audio"].append({"bytes": file.getvalue(), "path": None})
            table["ipa"].append(ipa)
            table["text"].append(text)
            table["speaker_code"].append("spkr103")
        pyarrow.parquet.write_table(
            pyarrow.table(table), root / f"data/{split}-00000-of-00001.parquet"
        )
    return root


def make_speechocean762(root: Path) -> Path:
    """Five utterances: one is kept with a phone replaced and one deleted."""
    heard = {
        "000010011": ("L IY1 S AH0", [(0, "D"), (3, "<DEL>")]),
        "000010012": ("DH AH0", []),  # [ð]
        "000010013": ("B EH1", [(1, "<unk>")]),
        "000010014": ("B EH1", [(1, "AE*")]),
        "000010015": ("B EH1", []),  # without audio
    }
    scores = {}
    for utt_id, (phones, faults) in heard.items():
        word = {"text": "LISA", "phones": phones, "phones-accuracy": [2.0]}
        if faults:
            word["mispronunciations"] = [
                {"canonical-phone": "X", "index": i, "pronounced-phone": phone}
                for i, phone in faults
            ]
        scores[utt_id] = {"text": "LISA", "words": [word]}
        if utt_id != "000010015":
            write_wav(root / f"WAVE/SPEAKER0001/{utt_id}.WAV")
    write_wav(root / "WAVE/SPEAKER0001/000010016.WAV")  # which nobody scored
    for part, utt_ids in (("train", ("000010012",)), ("test", ("000010011",))):
        (root / part).mkdir()
        lines = "".join(f"{utt_id}\t0001\n" for utt_id in utt_ids)
        (root / part / "utt2spk").write_text(lines)
    (root / "resource").mkdir()
    (root / "resource/scores.json").write_text(json.dumps(scores))
    return root


def make_tusom2021(root: Path) -> Path:
    """Two words, the second in stereo; a third without audio."""
    words = {
        "animals1-10.wav": ("ɕi", "ɕi˧˩"),
        "animals1-83.wav": ("səŋõ", "səŋo˥˧̃˧˩"),
        "verbs9-1.wav": ("pa", "pa˥"),
    }
    mapping = {
        name: {"gloss": "x", "no_tones": ipa, "tone_dias": ipa, "tone_letters": raw}
        for name, (ipa, raw) in words.items()
    }
    write_wav(root / "data/wav/animals1-10.wav")
    write_wav(root / "data/wav/animals1-83.wav", channels=2)
    text = yaml.safe_dump(mapping, allow_unicode=True)
    (root / "data/mapping.yml").write_text(text, encoding="utf-8")
    return root


def make_voxangeles(root: Path) -> Path:
    """Three languages: packed, unpacked, and one that was not audited."""
    rows = [
        ("abk", "abk-002-042", "atʃʼɘ́χrɜ", "at͡ʃʼɘχɘrɜ"),
        ("afn", "afn-005-059", "ĩ̀j̃ĩ̀", "ĩj̃ ĩ"),
        ("bem", "bem-000-000", '"m', "m"),
    ]
    (root / "transcriptions").mkdir(parents=True)
    with open(
        root / "transcriptions/voxangeles_transcriptions.tsv", "w", encoding="utf-8"
    ) as file:
        writer = csv.writer(
            file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writerow("lang file raw intermediate1 intermediate2 updated".split())
        for lang, name, raw, updated in rows:
            writer.writerow([lang, name, raw, "", "", updated])
    folder = root / "data/audited_aligned"
    write_wav(folder / "afn/afn-005-059.wav", rate=44_100)
    audio = io.BytesIO()
    soundfile.write(audio, tone(0.3), 16_000, format="WAV")
    with zipfile.ZipFile(folder / "abk.zip", "w") as archive:
        archive.writestr("abk/abk-002-042.wav", audio.getvalue())
        archive.writestr("abk/abk-002-042.TextGrid", "")
        archive.writestr("__MACOSX/abk/._abk-002-042.wav", "")
    return root


def make_drc_se(root: Path) -> Path:
    """A recording of 5 s: one unit is long enough, one short, one without phones."""
    table = root / "doreco_sout3282_annotations/doreco_sout3282_ph.csv"
    table.parent.mkdir(parents=True)
    name = "doreco_sout3282_mc_english_kent01"
    phones = "aI w @ z <p:> b O: n I n <<fp>> tS".split()
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow("lang file speaker ph start end ref wd_ID wd".split())
        for number, phone in enumerate(phones):
            start = 1 + number / 10
            row = ["sout3282", name, "EN01", phone, start, start + 0.1, "0001_A"]
            writer.writerow([*row, f"w{number // 4}", f"word{number // 4}"])
        for ref, speaker in (("0002_A", "EN01"), ("0003_A", "EN02")):
            row = ["sout3282", name, speaker, "m", 3, 3.1, ref, "w9", "mm"]
            writer.writerow(row)
        writer.writerow(["sout3282", name, "EN01", "", 4, 4.1, "<p:>", "", "<p:>"])
    write_wav(root / f"doreco_sout3282_audiofiles/{name}.wav", seconds=5.0)
    return root
