"""SpeechOcean762's training part: English of Mandarin speakers, as experts heard it.

2,500 utterances of `powsm.corpora.evaluation.speechocean762`, which says what is left
out. A model that is trained on them knows the kind of speech and labels of that
corpus's test part, so a score there is no longer one of new speech. CC BY 4.0.
"""

from collections import Counter
from functools import partial
from pathlib import Path

from powsm.audio_files import duration_s_of
from powsm.corpora.evaluation.kaldi_folder import LeftOut
from powsm.corpora.evaluation.speechocean762 import segments_of
from powsm.corpora.small.write_shar import Clip, Selection, read_recording

PACKAGES = ()
ESTIMATE = "writing about 170 MB in a minute"
REVISION = 1  # raise it when the choice of clips or their labels change


def select(root: Path, seed: int) -> Selection:
    """The utterances of the training part.

    Args:
        root: folder of the corpus, with `resource/scores.json` or `scores.json`.
        seed: changes nothing here.

    Raises:
        CorpusError: scores, recordings or the list of the part are missing.
    """
    left_out = LeftOut()
    selection = Selection(splits={"train": []})
    for segment in segments_of(root, left_out, part="train"):
        clip = Clip(
            clip_id=segment.key,
            language=segment.lang,
            speaker=segment.speaker,
            text=segment.text,
            ipa=segment.ipa,
            duration_s=duration_s_of(segment.audio),
            read_samples=partial(read_recording, segment.audio),
        )
        selection.splits["train"].append(clip)
    selection.left_out["eng"] = Counter(left_out.counts())
    return selection
