"""Keep languages and speakers of a small corpus out of training, each as a whole."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from powsm.corpora.small.write_shar import Clip, Selection
from powsm.languages import lang_code

DEV_MINUTES = 6.0  # of a language in a corpus: more would only lengthen validation


def hold_out(
    selection: Selection,
    *,
    dev_langs: Collection[str] = (),
    test_langs: Collection[str] = (),
    test_speakers: Collection[str] = (),
) -> Selection:
    """The selection with some languages for dev or test alone, and speakers for test.

    With languages for dev, clips of others that were for dev go to training: a dev set
    in languages that training lacks says how well new ones are heard. Clips for test
    stay there.

    Args:
        dev_langs: ISO 639-3; the first `DEV_MINUTES` of each, by id, are for dev, the
            rest is left out ("held_out").
        test_langs: ISO 639-3; all their clips are for test.
        test_speakers: all their clips are for test.
    """
    splits: dict[str, list[Clip]] = {"train": [], "dev": [], "test": []}
    left_out = {lang: Counter(reasons) for lang, reasons in selection.left_out.items()}
    minutes: Counter[str] = Counter()
    clips = [(clip, split) for split, part in selection.splits.items() for clip in part]
    for clip, split in sorted(clips, key=lambda pair: pair[0].clip_id):
        lang = lang_code(clip.language) or clip.language
        if clip.speaker in test_speakers or lang in test_langs or split == "test":
            splits["test"].append(clip)
        elif lang not in dev_langs:
            splits["train" if dev_langs else split].append(clip)
        elif minutes[lang] < DEV_MINUTES:
            splits["dev"].append(clip)
            minutes[lang] += clip.duration_s / 60
        else:
            left_out.setdefault(lang, Counter())["held_out"] += 1
    there = {split: part for split, part in splits.items() if part}
    return replace(selection, splits=there, left_out=left_out)
