"""Decode a clip with stock ESPnet alone: a model as it is, and its archive.

Stage 14 starts it as a process of its own, in which `powsm` cannot be imported, as
where it is not installed: `python -m powsm.publish.stock_check REQUEST`. The request is
a JSON file with `config weights archive clip lang prompts answer`; `prompts` has one of
each task. The file `answer` gets `unpacked` and `packed`: what they say to each task,
and under `phonemize` what `espnet phonemize --model ARCHIVE` prints, beside what the
unpacked model says at the settings of that command.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import soundfile

SEARCH = {"beam_size": 2, "ctc_weight": 0.3, "maxlenratio": -30.0}  # 30 tokens at most


def main(request: Path) -> None:
    """Answer a request; see the top of this module."""
    sys.modules["powsm"] = None  # from here on importing it fails
    from espnet2.bin.cli import main as espnet
    from espnet2.bin.cli import phones
    from espnet2.bin.s2t_inference import Speech2Text

    asked = json.loads(request.read_text("utf-8"))
    speech, _ = soundfile.read(asked["clip"], dtype="float32")

    def outputs(model: Speech2Text) -> dict[str, str]:
        texts = {}
        for task, prompt in asked["prompts"].items():
            symbols = {"lang_sym": f"<{asked['lang']}>", "task_sym": f"<{task}>"}
            texts[task] = model(speech, prompt, **symbols)[0][0]
        return texts

    own = asked["config"], asked["weights"]
    unpacked = outputs(Speech2Text(*own, **SEARCH))
    symbols = {"lang_sym": f"<{asked['lang']}>", "task_sym": "<pr>"}
    unpacked["phonemize"] = phones(Speech2Text(*own)(speech, **symbols)[0][3])
    packed = outputs(Speech2Text.from_pretrained(asked["archive"], **SEARCH))
    command = ["phonemize", asked["clip"], "--model", asked["archive"]]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = espnet([*command, "--language", asked["lang"], "--device", "cpu"])
    if status:
        raise SystemExit(f"espnet {' '.join(command)} ends with status {status}")
    packed["phonemize"] = printed.getvalue().strip()
    answer = json.dumps({"unpacked": unpacked, "packed": packed}, ensure_ascii=False)
    Path(asked["answer"]).write_text(answer, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
