"""The model card: what a packed model is, how to run it, and what it scores."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import yaml

from powsm.decode.profile import Profile
from powsm.formatting import markdown_table
from powsm.languages import LANGUAGES, language_name
from powsm.model.find import ModelFiles
from powsm.report.results_md import with_interval
from powsm.score.rates import rate_notes
from powsm.score.results import RESULTS_FILE, read_results, task_title
from powsm.settings import load_yaml
from powsm.tasks import DECODED_TASKS, TASKS

SNIPPET = """\
import soundfile
from espnet2.bin.s2t_inference import Speech2Text

model = Speech2Text.from_pretrained("{tag}", beam_size=3, ctc_weight=0.3)
speech, rate = soundfile.read("speech.wav", dtype="float32")
assert rate == 16000 and speech.ndim == 1, "16 kHz, one channel, up to {seconds:g} s"
for task, prompt in [{prompts}]:
    result = model(speech, prompt, lang_sym="{lang_sym}", task_sym=f"<{{task}}>")
    print(task, result[0][3])
"""


# By whether there is no decoder
_KINDS = {
    False: "An encoder-decoder speech model with the tasks of POWSM "
    "([arXiv 2510.24992](https://arxiv.org/abs/2510.24992))",
    True: "A speech model without a decoder, as POWSM-CTC "
    "([arXiv 2601.14046](https://arxiv.org/abs/2601.14046)), with the tasks of POWSM",
}


def model_card(
    files: ModelFiles, exp: Path, *, tag: str, profiles: Sequence[Path] = ()
) -> str:
    """The text of `README.md`.

    Args:
        files: the packed model.
        exp: experiment folder, for its scores.
        tag: what a user names the model by.
        profiles: decode profiles that go along.
    """
    config = load_yaml(files.config_file)
    tokens = set(config["token_list"])
    codes = [code for code in LANGUAGES if f"<{code}>" in tokens]
    tasks = [task for task in TASKS.values() if task.symbol in tokens]
    name = files.config_file.parent.name
    data = {
        "language": codes,
        "library_name": "espnet",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["espnet", "phone-recognition", "powsm"],
    }
    seconds = config["preprocessor_conf"]["speech_length"]
    snippet = SNIPPET.format(
        tag=tag,
        seconds=seconds,
        prompts=", ".join(f'("{task.name}", "{task.sample}")' for task in tasks),
        lang_sym=f"<{codes[0]}>" if codes else "<unk>",
    )
    languages = ", ".join(f"{language_name(code)} (`{code}`)" for code in codes)
    policies = files.normaliser
    parts = [
        f"---\n{yaml.safe_dump(data, sort_keys=False)}---",
        f"# {name}",
        f"{_KINDS['decoder_conf' not in config]}: "
        + ", ".join(f"{task.title} (`{task.symbol}`)" for task in tasks)
        + ".",
        f"Languages: {languages or 'none by name; the language is `<unk>`'}.",
        "Phones of the training set were normalised by policy "
        f"`{policies['policy']}`"
        + (f" (`{policies['version']}`)" if "version" in policies else "")
        + f", text by policy `{policies['text_policy']}`.",
        "## Use",
        f"With `espnet=={version('espnet')}` or later:",
        f"```python\n{snippet}```",
        "With the recipe that trained it, batched and at any length:",
        f"```bash\npowsm transcribe --model {tag} speech.wav\n```",
        "## Scores",
        _scores(exp, profiles, f"{seconds:g}"),
        "## Settings",
        markdown_table(["", ""], _settings(config)),
    ]
    if profiles:
        names = ", ".join(f"`conf/{path.name}`" for path in profiles)
        parts.append(f"Decode profiles: {names}.")
    return "\n\n".join(parts) + "\n"


def _windows(profiles: Sequence[Path], seconds: str) -> dict[str, str]:
    """What each profile hears of a recording, by its name in results."""
    words = {"own": "its own length", "published": f"padded to {seconds} s"}
    loaded = (Profile.load(path) for path in profiles)
    return {p.name.removeprefix("decode_"): words[p.window] for p in loaded}


def _scores(exp: Path, profiles: Sequence[Path], seconds: str) -> str:
    """Pooled scores by the main metric of each task."""
    if not (exp / RESULTS_FILE).exists():
        return "Not scored."
    results = [r for r in read_results(exp / RESULTS_FILE) if r.lang == "all"]
    windows = _windows(profiles, seconds)
    metrics: dict[tuple[str, str], set[str]] = {}
    for result in results:
        metrics.setdefault((result.set, result.task), set()).add(result.metric)
    rows = []
    for result in results:
        if result.task not in DECODED_TASKS:
            continue
        scored = metrics[result.set, result.task]
        found = [m for m in DECODED_TASKS[result.task].metrics if m in scored]
        if found and result.metric == found[0]:
            task = task_title(result.task)
            score = with_interval(result)
            window = windows.get(result.system, "not known")
            way = [result.system, window]
            rows.append([result.set, task, *way, result.metric, score])
    if not rows:
        return "Not scored."
    note = "Percent, with 95 % bootstrap intervals; `RESULTS.md` has the rest. "
    note += (
        "Decoded by the recipe's profiles; `audio` says what they hear of a recording. "
        f"The code above pads to {seconds} s: of rows at their own length it scores "
        "differently."
    )
    if cleanings := sorted({r.cleaning for r in results} - {""}):
        note += f" Phones were read by the cleaning `{' '.join(cleanings)}`."
    table = markdown_table(["set", "task", "decode", "audio", "", "score"], rows)
    return f"{note}\n\n{table}\n\n{rate_notes(dict.fromkeys(row[4] for row in rows))}"


def _settings(config: dict) -> list[list[str]]:
    encoder = config["encoder_conf"]
    decoder = config.get("decoder_conf") or {}
    is_ctc_only = "decoder_conf" not in config
    blocks = f"{config.get('decoder')}, {decoder.get('num_blocks', '?')} blocks"
    return [
        ["encoder", f"{config['encoder']}, {encoder.get('num_blocks', '?')} blocks"],
        ["width", str(encoder.get("output_size", "?"))],
        ["decoder", "none" if is_ctc_only else blocks],
        ["tokens", f"{len(config['token_list']):,}"],
        ["CTC weight in training", str(config["model_conf"].get("ctc_weight", "?"))],
        ["epochs", str(config.get("max_epoch", "?"))],
    ]
