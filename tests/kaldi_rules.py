"""What Kaldi's validate_data_dir.sh asks of a data directory, as rules of our own."""

from pathlib import Path

ILLEGAL = ("<s>", "</s>", "#0")  # as words of `text`


def kaldi_faults(folder: Path) -> list[str]:
    """Every rule that a folder breaks: [] for one that Kaldi takes."""
    rows = {}
    faults = []
    for name in ("utt2spk", "spk2utt", "text", "wav.scp", "utt2lang"):
        data = (folder / name).read_bytes()
        if not data.endswith(b"\n"):
            faults.append(f"{name}: its last line has no end")
        lines = data.decode().removesuffix("\n").split("\n")
        rows[name] = [line.split(" ") for line in lines]
        keys = [row[0].encode() for row in rows[name]]
        if keys != sorted(set(keys)):
            faults.append(f"{name}: not sorted by bytes, or a key twice")
        if name != "spk2utt" and keys != [row[0].encode() for row in rows["utt2spk"]]:
            faults.append(f"{name}: other utterances than utt2spk")
        if name == "text":
            faults += [f"text: {line!r}" for line in lines if _is_bad_text(line)]
    pairs = [tuple(row) for row in rows["utt2spk"]]
    if any(len(pair) != 2 for pair in pairs):
        faults.append("utt2spk: not two fields a line")
    if pairs != sorted(pairs, key=lambda pair: (pair[1].encode(), pair[0].encode())):
        faults.append("utt2spk: another order by speaker than by utterance")
    turned = [(utt, speaker) for speaker, *utts in rows["spk2utt"] for utt in utts]
    if turned != pairs:
        faults.append("spk2utt: is not utt2spk turned round")
    if any(" ".join(row[1:]).startswith("~") for row in rows["wav.scp"]):
        faults.append("wav.scp: a path that begins with ~")
    return faults


def _is_bad_text(line: str) -> bool:
    controls = any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)
    spaces = any(c.isspace() and c != " " for c in line)
    return controls or spaces or any(word in ILLEGAL for word in line.split(" "))
