"""Speech recognition by models of others, through stock ESPnet's own classes.

OWLS and other encoder-decoder models of OWSM's kind are searched greedily by their
decoder, OWSM-CTC is read by greedy CTC; every recording is padded to their own window.
"""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from espnet2.bin.s2t_inference import Speech2Text
from espnet2.bin.s2t_inference_ctc import Speech2TextGreedySearch
from tqdm import tqdm

from powsm.audio import read_audio
from powsm.files.lock import owned
from powsm.files.whole import atomic_write, sweep_files
from powsm.languages import UNKNOWN_LANG_SYM
from powsm.model.find import find_model
from powsm.score.decoded import HYP_FILE, DumpSet
from powsm.settings import load_yaml

KINDS = ("owls", "owsm_ctc")
ASR = "<asr>"

log = logging.getLogger(__name__)
Recogniser = Callable[[np.ndarray, str], str]


def load_baseline(source: str, kind: str, device: str) -> Recogniser:
    """A model of others: speech and ISO 639-3 code in, words out.

    Args:
        source: experiment folder, packed folder or archive, or Hub tag.
        kind: of `KINDS`.
        device: `cpu` or `cuda`.

    Raises:
        CheckpointError: there is no such model.
    """
    files = find_model(source)
    config = load_yaml(files.config_file)
    config["bpemodel"] = str(files.bpe_model.resolve())
    if files.stats_file is not None:
        stats = {"stats_file": str(files.stats_file.resolve())}
        config["normalize_conf"] = {**config["normalize_conf"], **stats}
    with tempfile.TemporaryDirectory() as folder:
        config_file = Path(folder) / "config.yaml"
        config_file.write_text(yaml.safe_dump(config), encoding="utf-8")
        own = (str(config_file), str(files.weights_file.resolve()))
        model: Callable
        if kind == "owls":
            model = Speech2Text(*own, device=device, beam_size=1, ctc_weight=0.0)
        else:
            model = Speech2TextGreedySearch(*own, device=device)
    symbols = set(config["token_list"])

    def recognise(speech: np.ndarray, lang: str) -> str:
        lang_sym = f"<{lang}>" if f"<{lang}>" in symbols else UNKNOWN_LANG_SYM
        return model(speech, lang_sym=lang_sym, task_sym=ASR)[0][3]

    return recognise


def recognise_set(recognise: Recogniser, folder: Path, out: Path) -> Path:
    """Write `hyp.jsonl` of a set, whole or not at all.

    Args:
        recognise: of `load_baseline`.
        folder: `dump/raw/<set>`.
        out: `<exp>/<profile>/<set>/asr`.

    Raises:
        OwnedError: another process decodes this set.
        AudioError: a recording that cannot be used.
    """
    truth = DumpSet(folder)
    bar = {"desc": f"{folder.name} asr", "unit": "utt", "disable": None}
    with owned(out):
        sweep_files(out)
        with atomic_write(out / HYP_FILE) as file:
            for utt_id, location in tqdm(sorted(truth.locations.items()), **bar):
                said = recognise(read_audio(location), truth.langs[utt_id])
                record = {"utt_id": utt_id, "text": said.strip()}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    log.info("%s: %d recordings", out, len(truth.locations))
    return out / HYP_FILE
