"""RESULTS.md, pictures and page data from a generated experiment."""

import dataclasses
import json
import math
import os
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from experiment_builder import PHONES, make_experiment, make_history, write_hyps
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from powsm.audio import SAMPLE_RATE
from powsm.files.current import VERSIONS, write_record
from powsm.files.whole import sha256_file, write_whole
from powsm.phones import chart as phonology
from powsm.phones.inventory import INVENTORY
from powsm.phones.normaliser import Normaliser
from powsm.report import clips, decoded, page, plots
from powsm.report import results_md as markdown
from powsm.report.experiment import (
    ReportError,
    chance_of,
    read_experiment,
    training_command,
)
from powsm.report.weak import weaknesses
from powsm.score.decoded import DecodedError
from powsm.score.metrics import score_phones
from powsm.score.results import ResultsError, read_results, score_experiment

PNG_START = b"\x89PNG\r\n"


@pytest.fixture
def experiment(tmp_path):
    exp, _ = make_experiment(tmp_path)
    return read_experiment(exp)


def test_results_md_holds_scores_with_intervals(experiment, tmp_path):
    text = markdown.render(experiment, tmp_path / "dump/raw", "python report.py")
    # b: a substitution; c: a deletion; d: an insertion; e: two deletions; 12 phones
    assert "41.7 [36.7, 46.7]" in text
    assert "| spa (Spanish) |" in text
    assert "python report.py" in text and "scripts/s2t.sh --nj 2 --stage 11" in text
    assert "normaliser of test_tone | strict/1, text powsm_fix" in text
    # 0.3 s of computing for 5 x 0.6 s of audio
    assert "| 3.0 | 0.3 | 0.1000 |" in text


def test_results_md_names_the_definition_of_every_metric(experiment, tmp_path):
    text = markdown.render(experiment, tmp_path, "")
    for metric in ("PFER", "PER", "accuracy"):
        assert f"- `{metric}`: " in text


def test_an_epoch_that_diverged_is_not_the_best(experiment, tmp_path):
    first, *others = experiment.history
    nothing = {**first, "loss": math.nan, "pfer_ctc": math.nan}
    changed = dataclasses.replace(experiment, history=(nothing, *others))
    best = min(others, key=lambda record: record["loss"])
    text = markdown.render(changed, tmp_path, "")
    assert f"Best validation loss: {best['loss']:.2f}, epoch {best['epoch']} " in text
    assert "lowest at the last epoch" in text
    lost = dataclasses.replace(
        experiment, history=(*others, {**others[-1], "loss": math.nan})
    )
    assert "lowest at the last epoch" not in "\n".join(weaknesses(lost, tmp_path))


def test_weak_results_are_said(experiment, tmp_path):
    text = "\n".join(weaknesses(experiment, tmp_path))
    assert "PFER 31.4 is more than half of chance (other utterances' references" in text
    assert "accuracy 80.0 is below 90" in text
    assert "only 5 utterances" in text
    assert "lowest at the last epoch" in text


@pytest.mark.parametrize(("unit", "n_said"), [("speaker", 1), ("utterance", 0)])
def test_intervals_over_few_speakers_are_called_narrow(tmp_path, unit, n_said):
    exp, dump = make_experiment(tmp_path)
    score_experiment(exp, dump, unit=unit)
    text = "\n".join(weaknesses(read_experiment(exp), dump))
    said = "test_tone: only 2 speakers; the intervals over them are too narrow."
    assert text.count(said) == n_said


def with_values(experiment, **values):
    """The experiment with other pooled values; intervals go with them."""
    results = [
        dataclasses.replace(
            r,
            value=values[r.metric],
            low=values[r.metric] - 2,
            high=values[r.metric] + 2,
        )
        if r.metric in values
        else r
        for r in experiment.results
    ]
    return dataclasses.replace(experiment, results=tuple(results))


@pytest.mark.parametrize(
    ("pfer", "chance", "said"),
    [
        (
            38.0,
            38.5,
            "38.0, and other utterances' references give 38.5: chance, nothing",
        ),
        (30.5, 34.0, "34.0: not certainly better than chance"),
        (20.0, 34.0, "20.0 is more than half of chance"),
        (16.0, 34.0, ""),  # under half of it
        (16.0, 17.0, "chance, nothing was recognised"),
    ],
)
def test_a_pfer_is_judged_by_chance(experiment, tmp_path, pfer, chance, said):
    changed = with_values(experiment, PFER=pfer, PFER_chance=chance)
    about_phones = [x for x in weaknesses(changed, tmp_path) if ": PFER " in x]
    if said:
        assert len(about_phones) == 1 and said in about_phones[0]
    else:
        assert about_phones == []


def test_a_pfer_without_chance_is_not_judged(experiment, tmp_path):
    results = tuple(r for r in experiment.results if r.metric != "PFER_chance")
    changed = dataclasses.replace(experiment, results=results)
    text = "\n".join(weaknesses(changed, tmp_path))
    assert "PFER 31.4 without the rate of chance beside it; run stage 13 again" in text
    one = tuple(dataclasses.replace(result, n_utts=1) for result in results)
    text = "\n".join(weaknesses(dataclasses.replace(changed, results=one), tmp_path))
    assert "PFER 31.4 without the rate of chance beside it: alone" in text


def two_systems(experiment, value, low, spanish_low):
    """PFER by CTC of 20 [15, 25] with that of Spanish at 40, and by a decoder."""
    results = []
    for r in experiment.results:
        if r.metric == "PFER":
            lang = {"value": 40.0, "low": spanish_low, "high": 50.0}
            all_of_it = {"value": 20.0, "low": 15.0, "high": 25.0}
            by_ctc = dataclasses.replace(r, **(lang if r.lang == "spa" else all_of_it))
            decoder = {"profile": "joint", "decode": "joint"}
            decoder |= {"value": value, "low": low, "high": value + 5}
            results += [by_ctc, dataclasses.replace(r, **decoder)]
        elif r.metric == "PFER_chance":
            joint = {"profile": "joint", "decode": "joint", "value": 70.0}
            results += [dataclasses.replace(r, **joint), r]  # a profile before ctc's
        else:
            results.append(r)
    return dataclasses.replace(experiment, results=tuple(results))


@pytest.mark.parametrize(
    ("low", "spanish_low", "n_worse", "n_uneven"),
    [(26.0, 29.0, 1, 0), (24.0, 31.0, 0, 1)],  # beside 25, and one and a half of 20
)
def test_what_is_certainly_worse_is_said(
    experiment, tmp_path, low, spanish_low, n_worse, n_uneven
):
    changed = two_systems(experiment, 30.0, low, spanish_low)
    text = "\n".join(weaknesses(changed, tmp_path))
    worse = "PFER is worse than the 20.0 of the CTC head alone (joint 30.0)"
    assert text.count(worse) == n_worse
    uneven = "ctc_greedy: far above the pooled PFER of 20.0: spa 40.0."
    assert text.count(uneven) == n_uneven


def test_chance_is_that_of_the_same_decoding(experiment):
    changed = two_systems(experiment, 30.0, 26.0, 29.0)
    pooled = [r for r in changed.results if (r.metric, r.lang) == ("PFER", "all")]
    found = {r.system: chance_of(changed, r).value for r in pooled}
    assert found == {"joint": 70.0, "ctc_greedy": pytest.approx(60.0)}


def test_languages_without_a_symbol_are_not_held_against_a_model(experiment, tmp_path):
    # accuracy: 100 of two English, 66.7 of three Spanish utterances
    config = {**experiment.config, "token_list": ["<eng>"]}
    changed = dataclasses.replace(experiment, config=config)
    text = "\n".join(weaknesses(changed, tmp_path))
    assert "3 utterances are in languages that the model has no symbol for" in text
    assert "cannot be right: spa." in text
    assert "accuracy" not in text
    config["token_list"] = ["<spa>"]
    text = "\n".join(weaknesses(changed, tmp_path))
    assert "accuracy 66.7 among the languages with a symbol is below 90" in text


def test_chance_is_beside_every_pfer(experiment, tmp_path):
    text = markdown.render(experiment, tmp_path, "")
    assert "| set: task | decode | metric | score | chance | utts |" in text
    assert "| 31.4 [26.4, 36.4] | 60.0 [55.0, 65.0] | 5 |" in text
    assert "| PFER ctc_greedy | PFER_chance ctc_greedy | PER ctc_greedy |" in text
    data = page.page_data(experiment, tmp_path / "dump/raw", "")
    assert "PFER_chance" in data["main_metrics"]["pr"]
    assert "PFER_chance" not in data["main_metrics"]["asr"]


def test_write_makes_the_file(experiment, tmp_path):
    path = markdown.write(experiment, tmp_path, "")
    assert path == experiment.path / "RESULTS.md"
    assert path.read_text().startswith("# s2t_tiny\n")


def test_profile_is_kept_apart_from_the_kind_of_search(tmp_path):
    exp, _ = make_experiment(tmp_path)
    file = exp / "results.json"
    records = json.loads(file.read_text())
    file.write_text(
        json.dumps(records + [r | {"profile": "unk_lang"} for r in records])
    )
    systems = {r.system for r in read_experiment(exp).results if r.task == "pr"}
    assert systems == {"ctc_greedy", "unk_lang"}


def test_missing_results_says_what_to_run(tmp_path):
    with pytest.raises(ResultsError, match="stage 13"):
        read_experiment(tmp_path)


def test_record_without_a_field_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"set": "test_x", "lang": "all"}]')
    with pytest.raises(ResultsError, match="record 0 has no .*metric"):
        read_results(path)


def test_undefined_rate_is_not_a_number_of_its_own(tmp_path):
    exp, _ = make_experiment(tmp_path)
    file = exp / "results.json"
    records = json.loads(file.read_text())
    records[0] |= {"value": None, "low": None, "high": None}
    file.write_text(json.dumps(records))
    text = markdown.render(read_experiment(exp), tmp_path, "")
    assert "undefined" in text and "nan" not in text.lower()


def test_training_command_of_a_folder_without_run_sh(tmp_path):
    assert training_command(tmp_path) == ""


def test_plots_are_written_for_what_there_is(tmp_path):
    written = plots.write_plots(make_history(), tmp_path)
    assert [p.name for p in written] == [
        "loss.png",
        "validation_pfer.png",
        "validation_per.png",
    ]
    assert all(p.read_bytes().startswith(PNG_START) for p in written)
    assert plots.write_plots([], tmp_path) == []


def test_languages_of_history_are_not_task_names():
    history = [{"pfer_ctc": 1.0, "pfer_ctc_eng": 2.0, "loss_asr": 3.0, "updates": 1}]
    assert plots.languages_of(history, "pfer_ctc") == ["eng"]


# --- the page -------------------------------------------------------------------------


def test_decoded_sets_are_found_with_their_references(tmp_path):
    exp, dump = make_experiment(tmp_path)
    found = {d.task: d for d in decoded.read_decoded(exp, dump, ["test_tone"])}
    assert set(found) == {"pr", "lid"}
    assert found["pr"].langs == ("eng", "eng", "spa", "spa", "spa")
    assert found["lid"].lid_matrix() == [
        ("eng", "eng", 2),
        ("spa", "ita", 1),
        ("spa", "spa", 2),
    ]


def test_a_recording_that_could_not_be_read_is_shown(tmp_path):
    exp, dump = make_experiment(tmp_path)
    path = exp / "ctc_greedy/test_tone/pr_ctc/hyp.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[0]["seconds"]  # as stage 12 writes it
    rows[0] |= {"text": "", "error": "no such file"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    phones, _ = decoded.read_decoded(exp, dump, ["test_tone"])
    assert phones.durations_s[0] == 0.6


def test_the_page_is_made_without_sound_that_cannot_be_read(tmp_path, caplog):
    exp, dump = make_experiment(tmp_path)
    (tmp_path / "dump/raw/audio/tone_a_eng.wav").write_text("no audio")
    (system,) = page.page_data(read_experiment(exp), dump, "report")["systems"]
    clips_of = {u["id"]: u["clip"] for u in system["utterances"]}
    assert clips_of.pop("tone_a_eng") is None and None not in clips_of.values()
    assert caplog.text.count("the page has no sound of an utterance: ") == 1
    assert "tone_a_eng.wav" in caplog.text


def test_how_phones_and_intervals_were_counted_is_said(tmp_path):
    exp, dump = make_experiment(tmp_path)
    score_experiment(exp, dump)
    as_usual = markdown.render(read_experiment(exp), dump, "score")
    assert "cleaning" not in as_usual and "over speakers" not in as_usual
    score_experiment(exp, dump, cleaning="prism", unit="speaker")
    text = markdown.render(read_experiment(exp), dump, "score")
    assert "- Phones were read by the cleaning prism, not by the policies" in text
    assert "95 % bootstrap intervals over speakers in brackets" in text


def test_intervals_over_speakers_that_are_not_known_are_over_utterances(
    tmp_path, caplog
):
    exp, dump = make_experiment(tmp_path)
    keys = [x.split()[0] for x in (dump / "test_tone/utt2speaker").open()]
    alone = "".join(f"{key} {key.rpartition('_')[0]}\n" for key in keys)
    (dump / "test_tone/utt2speaker").write_text(alone)
    score_experiment(exp, dump, unit="speaker")
    assert "test_tone: speakers are not known: over utterances" in caplog.text
    units = {r.unit for r in read_experiment(exp).results}
    assert units == {"utterance"}
    assert "over speakers" not in markdown.render(read_experiment(exp), dump, "score")


def test_scores_older_than_what_was_decoded_are_said(tmp_path):
    exp, dump = make_experiment(tmp_path)
    said = "ctc_greedy/test_tone/pr_ctc was decoded after the scores here"
    score_experiment(exp, dump)
    assert said not in markdown.render(read_experiment(exp), dump, "score")
    hyps = exp / "ctc_greedy/test_tone/pr_ctc/hyp.jsonl"
    later = (exp / "results.json").stat().st_mtime_ns + 1_000_000
    os.utime(hyps, ns=(later, later))
    assert said in markdown.render(read_experiment(exp), dump, "score")


def test_what_an_earlier_version_decoded_is_said(tmp_path, monkeypatch, caplog):
    exp, dump = make_experiment(tmp_path)
    folder = exp / "ctc_greedy/test_tone/pr_ctc"
    write_record(folder / "done.json", "decoded", {}, [folder / "hyp.jsonl"])
    said = "ctc_greedy/test_tone/pr_ctc was decoded by an earlier version"
    score_experiment(exp, dump)
    assert "earlier" not in caplog.text
    assert said not in markdown.render(read_experiment(exp), dump, "score")
    monkeypatch.setitem(VERSIONS, "decoded", VERSIONS["decoded"] + 1)
    score_experiment(exp, dump)
    assert f"{folder}: of an earlier version; run stage 12 again" in caplog.text
    assert said in markdown.render(read_experiment(exp), dump, "score")


def test_times_of_phones_that_were_decoded_before_are_not_shown(tmp_path, caplog):
    exp, dump = make_experiment(tmp_path)
    hyps = exp / "ctc_greedy/test_tone/pr_ctc/hyp.jsonl"
    align = hyps.parent / "align"
    segment = {"phone": "p", "start": 0.1, "end": 0.2}
    row = {"utt_id": "tone_a_eng", "segments": [segment]}
    write_whole(align / "phones.jsonl", json.dumps(row) + "\n")
    made_from = {"weights": "", "hyp.jsonl": sha256_file(hyps)}
    write_record(align / "done.json", "aligned", made_from)
    phones, _ = decoded.read_decoded(exp, dump, ["test_tone"])
    assert phones.times([0]) == {0: [("p", 0.1, 0.2)]}
    hyps.write_text(hyps.read_text().replace("/i/", "/a/"))
    assert phones.times([0]) == {}
    assert "of phones that were decoded before; --align again" in caplog.text


@pytest.mark.parametrize("key", ["weights", "profile"])
def test_sets_decoded_with_other_weights_or_settings_are_said(tmp_path, key):
    """One table had scores of two states of a training, as of one set decoded again."""
    exp, dump = make_experiment(tmp_path)
    said = "ctc_greedy/test_tone/pr_ctc was decoded with other weights or settings"
    for number, name in enumerate(("test_tone", "test_new")):
        folder = exp / f"ctc_greedy/{name}/pr_ctc"
        if name == "test_new":
            shutil.copytree(dump / "test_tone", dump / name)
            shutil.copytree(exp / "ctc_greedy/test_tone/pr_ctc", folder)
        rows = [json.loads(x) for x in (folder / "hyp.jsonl").open(encoding="utf-8")]
        rows = [json.dumps({**row, key: f"{number}a"}) + "\n" for row in rows]
        (folder / "hyp.jsonl").write_text("".join(rows))
        os.utime(folder / "hyp.jsonl", ns=(10**18, 10**18 + number))
        score_experiment(exp, dump)
        text = markdown.render(read_experiment(exp), dump, "score")
        assert (said in text) == (number == 1)
        assert "test_new/pr_ctc was decoded with other" not in text


def test_sets_that_were_not_scored_are_left_alone(tmp_path):
    exp, dump = make_experiment(tmp_path)
    write_hyps(exp, "ctc_greedy", "test_other", "pr_ctc", {})
    assert page.page_data(read_experiment(exp), dump, "")["systems"]
    with pytest.raises(DecodedError, match="test_other: no such folder.*--dump"):
        list(decoded.read_decoded(exp, dump, ["test_other"]))


def test_confusions_add_up_to_the_phones(tmp_path):
    exp, dump = make_experiment(tmp_path)
    phones = next(
        d for d in decoded.read_decoded(exp, dump, ["test_tone"]) if d.task == "pr"
    )
    counts = phones.confusions()
    assert counts["eng", "p", "b"] == 1
    assert counts["spa", "s", decoded.GAP] == 1
    assert counts["spa", decoded.GAP, "n"] == 1
    assert sum(n for (_, ref, _), n in counts.items() if ref != decoded.GAP) == 12


def test_worst_utterances_and_examples(tmp_path):
    exp, dump = make_experiment(tmp_path)
    phones = next(
        d for d in decoded.read_decoded(exp, dump, ["test_tone"]) if d.task == "pr"
    )
    # the empty output first, the correct one last
    ids = [phones.utt_ids[k] for k in phones.worst(5)]
    assert ids[0] == "tone_e_spa" and ids[-1] == "tone_a_eng"
    scores = score_phones(hyp=phones.hyps, ref=phones.refs)
    assert phones.errors == pytest.approx(scores.utterance_values("PFER"))
    shown = {phones.utt_ids[k] for k in phones.examples(10)}
    assert shown == {"tone_b_eng", "tone_c_spa", "tone_d_spa", "tone_e_spa"}
    assert len(phones.examples(1)) == 1


def test_hypothesis_of_another_set_is_an_error(tmp_path):
    exp, dump = make_experiment(tmp_path)
    file = exp / "ctc_greedy/test_tone/pr_ctc/hyp.jsonl"
    file.write_text(file.read_text().replace("tone_b_eng", "tone_x_eng"))
    with pytest.raises(ReportError, match="1 utterances are not in .*tone_x_eng"):
        list(decoded.read_decoded(exp, dump, ["test_tone"]))


@pytest.mark.parametrize(
    ("phone", "manner", "place", "voicing"),
    [
        ("pʰ", "plosive", "bilabial", "voiceless"),  # a modifier changes nothing
        ("t͡ʃ", "affricate", "postalveolar", "voiceless"),
        ("k͡p", "plosive", "bilabial", "voiceless"),  # two plosives are no affricate
        ("n̥", "nasal", "dental or alveolar", "voiceless"),  # ring below
        ("ə̃", "vowel", "central vowel", "vowel"),
        ("˥", "other", "other", "other"),  # a tone
    ],
)
def test_classes_of_phones(phone, manner, place, voicing):
    found = phonology.classes(unicodedata.normalize("NFD", phone))
    assert (found["manner"], found["place"], found["voicing"]) == (
        manner,
        place,
        voicing,
    )


def test_every_inventory_phone_has_classes_the_page_knows():
    for phone in INVENTORY:
        for name, known in phonology.PROPERTIES.items():
            assert phonology.classes(phone)[name] in known


def test_spectrogram_is_the_right_way_up():
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    low = clips.spectrogram(np.sin(2 * np.pi * 500 * time))
    rows, frames = low.shape
    assert (rows, frames) == (257, 101)
    # 500 of 8000 Hz: a sixteenth above the bottom row
    assert low.mean(axis=1).argmax() == pytest.approx(rows * 15 / 16, abs=3)


def test_spectrogram_of_silence_is_finite():
    assert np.isfinite(clips.spectrogram(np.zeros(SAMPLE_RATE))).all()


def test_clip_budget_refuses_what_does_not_fit(tmp_path):
    make_experiment(tmp_path)
    audio = sorted((tmp_path / "dump/raw/audio").glob("*.wav"))
    budget = clips.ClipBudget(max_clips=2, max_bytes=10**6)
    assert [budget.add(str(path)) for path in (*audio[:3], audio[0])] == [
        True,
        True,
        False,
        True,
    ]
    assert not clips.ClipBudget(max_clips=2, max_bytes=10).add(str(audio[0]))


def test_page_survives_names_that_look_like_markup(tmp_path):
    exp, dump = make_experiment(tmp_path, name="a<b>&c")
    data = page.page_data(read_experiment(exp), dump, "python '</script><b>'")
    html = page.render(data)
    assert "<title>a&lt;b>&amp;c</title>" in html
    assert html.count("</script>") == 2  # the data's and the program's


def test_page_asks_for_nothing(tmp_path):
    exp, dump = make_experiment(tmp_path)
    html = page.write(read_experiment(exp), dump, "").read_text()
    assert "default-src 'none'" in html
    for fetching in ('<link rel="stylesheet', "<script src", "fetch(", "@import"):
        assert fetching not in html
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")


def test_page_without_history_and_settings(tmp_path):
    exp, dump = make_experiment(tmp_path)
    (exp / "history.jsonl").unlink()
    (exp / "config.yaml").unlink()
    data = page.page_data(read_experiment(exp), dump, "")
    assert data["history"] == [] and data["settings"] == {}


def test_training_figures_are_means_of_what_was_logged(tmp_path):
    exp, _ = make_experiment(tmp_path)
    writer = EventFileWriter(str(exp / "tensorboard"))
    for step, value in ((10, 0.1), (50, 0.3), (60, 0.8)):
        point = Summary.Value(tag="train/acc_pr", simple_value=value)
        writer.add_event(Event(step=step, summary=Summary(value=[point])))
    writer.close()
    history = read_experiment(exp).history
    assert history[0]["train_acc_pr"] == pytest.approx(0.2)  # epoch 1: updates 1 to 50
    assert history[1]["train_acc_pr"] == pytest.approx(0.8)
    assert "train_loss" not in history[0]  # the last batch alone says nothing


@pytest.mark.parametrize(
    ("then", "now", "is_said"),
    [
        (r"phone_map=\w+", "phone_map=00000000", True),
        (r"strict/\d+", "strict/0", True),  # rules of an earlier version
        (r"panphon=\S+", "panphon=0.1", True),
        ("english_rules=on", "english_rules=off", False),  # a set of human labels
    ],
)
def test_set_made_with_another_normaliser_is_said(tmp_path, then, now, is_said):
    exp, dump = make_experiment(tmp_path)
    file = dump / "test_tone/normaliser.json"
    version, n_changed = re.subn(then, now, Normaliser().version)
    assert n_changed == 1
    record = json.loads(file.read_text()) | {"version": version}
    file.write_text(json.dumps(record))
    found = weaknesses(read_experiment(exp), dump)
    assert ("another phone map or other rules" in found[0]) == is_said


def test_set_that_names_no_text_policy_is_reported(tmp_path):
    exp, dump = make_experiment(tmp_path)
    record = {"policy": "strict", "version": "strict/1"}
    (dump / "test_tone/normaliser.json").write_text(json.dumps(record))
    text = markdown.render(read_experiment(exp), dump, "report")
    assert "| normaliser of test_tone | strict/1, text not known |" in text


def test_set_of_an_incomplete_copy_is_said(tmp_path):
    exp, dump = make_experiment(tmp_path)
    (dump / "test_tone/set.json").write_text('{"missing": ["abk", "ady"]}')
    found = weaknesses(read_experiment(exp), dump)
    assert "test_tone: an incomplete copy, without abk ady" in found[0]


def test_words_of_text_tasks_are_aligned(tmp_path):
    exp, dump = make_experiment(tmp_path)
    heard = {utt_id: f"word {utt_id[5]}" for utt_id in PHONES}
    heard["tone_c_spa"] = "c"  # "word" is missing: half of two words
    write_hyps(exp, "attention", "test_tone", "asr_attention", heard)
    data = page.page_data(read_experiment(exp), dump, "")
    asr = next(s for s in data["systems"] if s["task"] == "asr")
    worst = asr["utterances"][asr["worst"][0]]
    assert (worst["id"], worst["error"]) == ("tone_c_spa", 50.0)
    assert worst["steps"] == [("word", decoded.GAP), ("c", "c")]
    assert asr["error"] == "WER" and asr["confusions"] is None


def test_texts_are_aligned_as_they_are_scored():
    """In one Unicode form, and by characters where words have no spaces."""
    langs = ("fra", "cmn")
    texts = ("cafe\u0301 noir", "我们 好"), ("café noir", "我们坏")
    names, places = ("a", "b"), (1.0, 1.0)
    which = ("x", "test_x", "asr", "powsm_fix", names)
    texts = decoded.AlignedSet(*which, *texts, langs, names, places, Path("none"))
    french, chinese = texts.alignments
    assert french == [("café", "café"), ("noir", "noir")]
    assert chinese == [("我", "我"), ("们", "们"), ("坏", "好")]
    assert texts.errors == pytest.approx([0, 100 / 3])


def test_confusions_of_very_many_languages_are_pooled(tmp_path, monkeypatch):
    exp, dump = make_experiment(tmp_path)
    whole = page.page_data(read_experiment(exp), dump, "")["systems"][0]
    assert set(whole["confusions"]) == {"eng", "spa"}
    monkeypatch.setattr(page, "MAX_CONFUSIONS", 1)
    pooled = page.page_data(read_experiment(exp), dump, "")["systems"][0]
    total = sum(n for rows in whole["confusions"].values() for _, _, n in rows)
    assert sum(n for _, _, n in pooled["confusions"]["all"]) == total
    assert set(pooled["confusions"]) == {"all"}


def test_headline_is_of_a_test_set(experiment, tmp_path):
    """Epochs were chosen by dev, whose score comes first and is better."""
    dev = [
        dataclasses.replace(r, set="dev", value=r.value / 2) for r in experiment.results
    ]
    both = dataclasses.replace(experiment, results=(*dev, *experiment.results))
    assert page.headline(both, tmp_path)["set"] == "test_tone"
    alone = dataclasses.replace(experiment, results=tuple(dev))
    assert page.headline(alone, tmp_path)["set"] == "dev"


def test_page_takes_no_name_for_a_template(tmp_path):
    name = "{{ data }} {{ style }} {{ nothing }}"
    exp, dump = make_experiment(tmp_path, name=name)
    html = page.render(page.page_data(read_experiment(exp), dump, "python x"))
    assert f"<title>{name}</title>" in html
