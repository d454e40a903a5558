"""What was heard as a page of its own: spectrogram, phones, sound, and files."""

from collections.abc import Sequence

from powsm.decode.recordings.result import Result
from powsm.languages import language_name
from powsm.phones.chart import classes
from powsm.phones.inventory import FEATURES, signed_features
from powsm.report.clips import MAX_FREQUENCY_HZ, audio_uri, spectrogram_uri
from powsm.report.demo.bench import Spoken
from powsm.report.page import filled, part_of_page
from powsm.tasks import PHONES, TASKS

_BODY = '<main id="heard"></main>\n'
_FILES = {"TextGrid": "textgrid", "json": "json"}  # ending -> format


def heard_page(spoken: Spoken, heard: Sequence[tuple[str, Result]]) -> str:
    """The page of a recording, whole: nothing is asked of a server afterwards.

    Args:
        spoken: the recording.
        heard: what each way of hearing, by its label, made of it.
    """
    results = [result for _, result in heard]
    phones = dict.fromkeys(p for result in results for p in result.phones)
    data = {
        "name": spoken.name,
        "seconds": spoken.seconds,
        "clip": {
            "audio": audio_uri(spoken.samples),
            "image": spectrogram_uri(spoken.samples),
        },
        "max_frequency_hz": MAX_FREQUENCY_HZ,
        "sides": [_side(label, result) for label, result in heard],
        "phones": {phone: described(phone) for phone in phones},
    }
    scripts = [part_of_page("clip.js"), part_of_page("demo/heard.js")]
    css = part_of_page("report.css") + part_of_page("demo/heard.css")
    return filled(_BODY, spoken.name, css, scripts, data)


def _side(label: str, result: Result) -> dict:
    return {
        "label": label,
        "task": TASKS[result.task].title,
        "told": language_name(result.lang) if result.lang != "unk" else "no language",
        "text": result.text,
        "is_phones": TASKS[result.task].writes == PHONES,
        "times": [
            [s.phone, s.start, s.end, round(s.confidence, 3)] for s in result.segments
        ],
        "files": {ending: result.to(form) for ending, form in _FILES.items()},
    }


def described(phone: str) -> str:
    """What the chart calls a phone, and its features.

    >>> described("p").partition(":")[0]
    'voiceless bilabial plosive'
    >>> described("i").partition(":")[0]
    'close front vowel'
    """
    its = classes(phone)
    if its["manner"] == "vowel":
        name = f"{its['height']} {its['place']}"
    else:
        name = f"{its['voicing']} {its['place']} {its['manner']}"
    return f"{name}: {signed_features(phone)}" if phone in FEATURES else name
