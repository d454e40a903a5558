"""Reading decoded sets: places, references, and the ways they can be broken."""

import json
from types import SimpleNamespace

import pytest
from experiment_builder import PHONES, make_dump, make_experiment, write_hyps

from powsm.cli.stages.decode import keep_policies
from powsm.errors import PowsmError
from powsm.files.whole import DamagedError
from powsm.score.decoded import DecodedError, DecodedSet, DumpSet, decoded_sets
from powsm.score.rates import ScoreError
from powsm.score.results import ResultsError, read_history, score_experiment


@pytest.fixture
def dump(tmp_path):
    make_dump(tmp_path / "dump")
    return tmp_path / "dump"


def hyps(exp, tag, texts):
    return DecodedSet(write_hyps(exp, "decode_x", "test_tone", tag, texts))


def test_a_folder_says_what_was_decoded(tmp_path):
    decoded = DecodedSet(tmp_path / "decode_paper" / "test_a" / "g2p_joint_unk")
    assert (decoded.profile, decoded.set_name) == ("paper", "test_a")
    assert (decoded.task, decoded.decode) == ("g2p", "joint_unk")
    assert decoded.writes == "phones"
    assert str(decoded.place) == "decode_paper/test_a/g2p_joint_unk"
    assert DecodedSet(tmp_path / "lid_paper" / "test_a" / "lid").decode == ""


def test_everything_decoded_is_listed_by_experiment_and_by_profile(tmp_path):
    exp, _ = make_experiment(tmp_path)
    places = [decoded.place for decoded in decoded_sets(exp)]
    assert places == sorted(places) and places
    in_profile = decoded_sets(exp / places[0].parts[0])
    assert [d.place for d in in_profile] == [
        place for place in places if place.parts[0] == places[0].parts[0]
    ]
    assert decoded_sets(exp, ["test_other"]) == []


def test_score_by_hand(tmp_path, dump):
    texts = {u: "".join(f"/{p}/" for p in hyp) for u, (_, _, hyp) in PHONES.items()}
    scores = hyps(tmp_path / "exp", "pr_ctc", texts).score(dump)
    # a substitution, a deletion, an insertion and two deletions in 12 phones
    assert scores.value("PER") == pytest.approx(100 * 5 / 12)
    assert set(scores.by_lang()) == {"eng", "spa"}


def test_score_of_words_asks_the_policy_of_the_set(tmp_path, dump):
    """Korean has words under one policy and none under the other."""
    folder = dump / "test_tone"
    lines = (folder / "utt2lang").read_text().splitlines()
    (folder / "utt2lang").write_text(
        "".join(f"{line.split()[0]} kor\n" for line in lines)
    )
    texts = {utt_id: f"word {utt_id[5]}" for utt_id in PHONES}
    decoded = hyps(tmp_path / "exp", "asr_joint", texts)
    assert decoded.score(dump).counts["n_words"] == 10
    record = {"policy": "released", "version": "1", "text_policy": "released"}
    (folder / "normaliser.json").write_text(json.dumps(record))
    assert decoded.score(dump).counts["n_words"] == 0


def test_model_from_the_hub_is_not_scored_in_words_of_another_policy(tmp_path, dump):
    """Its results are in exp/<tag>, where no training left a record."""
    decoded = hyps(tmp_path / "exp", "asr_joint", {u: "word" for u in PHONES})
    policies = {"policy": "released", "text_policy": "released"}
    keep_policies(SimpleNamespace(normaliser=policies), tmp_path / "exp")
    with pytest.raises(DecodedError, match="writes text by policy released"):
        decoded.score(dump)


def test_results_of_models_that_write_differently_are_kept_apart(tmp_path):
    def keep(text_policy):
        policies = {"policy": "strict", "text_policy": text_policy}
        keep_policies(SimpleNamespace(normaliser=policies, source="m"), tmp_path)

    keep("powsm_fix")
    keep("powsm_fix")
    with pytest.raises(PowsmError, match="text policy powsm_fix, the model writes by"):
        keep("released")


def test_set_without_orthography_is_not_scored_in_words(tmp_path, dump):
    record = {"policy": "strict", "version": "1", "text_policy": "none"}
    (dump / "test_tone" / "normaliser.json").write_text(json.dumps(record))
    decoded = hyps(tmp_path / "exp", "asr_joint", {"tone_a_eng": "a"})
    with pytest.raises(DecodedError, match=r"text policy 'none', expected one of"):
        decoded.score(dump)


def test_references_of_a_training_set_are_its_targets(tmp_path):
    rows = ["a_asr <eng><asr><notimestamps> pa", "a_pr <eng><pr><notimestamps>/p//a/"]
    rows += ["b_asr <eng><asr><notimestamps> be"]
    (tmp_path / "train").mkdir()
    (tmp_path / "train/text").write_text("\n".join(rows) + "\n")
    train = DumpSet(tmp_path / "train")
    assert train.references("phones") == {"a": "/p//a/", "b": ""}
    assert train.references("text") == {"a": "pa", "b": "be"}


def test_lengths_that_are_no_numbers_are_told(dump):
    path = dump / "test_tone/utt2num_samples"
    path.write_text(path.read_text().replace("\n", ".5\n"))
    with pytest.raises(DecodedError, match=r"\.5' is no number of samples"):
        DumpSet(dump / "test_tone").durations_s  # noqa: B018


def test_languages_are_scored_with_the_likeliest_where_they_were_written(
    tmp_path, dump
):
    decoded = hyps(tmp_path / "exp", "lid", dict.fromkeys(PHONES, "<eng>"))
    scores = decoded.score(dump)
    assert scores.value("accuracy") == 40.0
    assert scores.rates == ("accuracy",)
    path = decoded.folder / "hyp.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["languages"] = {"<eng>": -0.1, "<spa>": -2.0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert decoded.score(dump).value("top_5") == 100.0
    # a recording that could not be read has none, and counts as an empty output
    del rows[0]["languages"]
    rows[0] |= {"text": "", "error": "no such file"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert decoded.score(dump).value("top_5") == 80.0
    assert decoded.score(dump).value("accuracy") == 20.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "hyp.jsonl:6: damaged, no whole JSON"),
        ("[]", r"hyp.jsonl:6"),
        ('{"utt_id": "tone_a_eng"}', r"hyp.jsonl:6"),
        ('{"utt_id": "tone_a_eng", "text": ""}', r"'tone_a_eng' is given twice"),
        ('{"utt_id": 1, "text": ""}', "hyp.jsonl:6: utt_id or text is none"),
        ('{"utt_id": "tone_f_eng", "text": null}', "hyp.jsonl:6: utt_id or text is"),
    ],
)
def test_broken_hypotheses_are_named(tmp_path, dump, line, message):
    decoded = hyps(tmp_path / "exp", "pr_ctc", dict.fromkeys(PHONES, ""))
    with open(decoded.folder / "hyp.jsonl", "a") as file:
        file.write(line)
    with pytest.raises((DecodedError, DamagedError), match=message):
        decoded.score(dump)


def test_missing_files_say_what_to_do(tmp_path, dump):
    decoded = hyps(tmp_path / "exp", "pr_ctc", dict.fromkeys(PHONES, ""))
    with pytest.raises(DecodedError, match="name the dump folder .* with --dump"):
        decoded.score(tmp_path)
    (dump / "test_tone" / "ref.ipa").unlink()
    with pytest.raises(DecodedError, match="ref.ipa is missing; run stage 4 again"):
        decoded.score(dump)
    with pytest.raises(DecodedError, match="no task 'tts'; the tasks are pr g2p asr"):
        _ = DecodedSet(tmp_path / "x" / "test_tone" / "tts_joint").writes


def test_utterances_without_orthography_are_left_out_of_words(tmp_path, dump):
    path = dump / "test_tone/ref.text"
    path.write_text(path.read_text().replace(" word e", ""))
    texts = {u: f"word {u[5]}" for u in PHONES if u != "tone_e_spa"}
    assert len(hyps(tmp_path / "exp", "asr_joint", texts).score(dump)) == 4
    phones = dict.fromkeys(texts, "")
    assert len(hyps(tmp_path / "exp", "g2p_joint", phones).score(dump)) == 4
    with pytest.raises(ScoreError, match="tone_e_spa"):
        hyps(tmp_path / "exp", "pr_joint", phones).score(dump)


def test_two_decodings_of_one_task_by_a_profile_are_refused(tmp_path, dump):
    """Settings that changed left the first: a report would show either."""
    exp = tmp_path / "exp"
    hyps(exp, "g2p_joint", dict.fromkeys(PHONES, ""))
    hyps(exp, "pr_joint", dict.fromkeys(PHONES, ""))
    assert len(decoded_sets(exp)) == 2
    hyps(exp, "g2p_joint_none", dict.fromkeys(PHONES, ""))
    for folder in (exp, exp / "decode_x"):
        with pytest.raises(DecodedError, match="g2p_joint and .*g2p_joint_none are of"):
            decoded_sets(folder)


def test_recordings_that_could_not_be_read_are_counted(tmp_path, dump, caplog):
    decoded = hyps(tmp_path / "exp", "pr_ctc", dict.fromkeys(PHONES, ""))
    path = decoded.folder / "hyp.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"error": "no such file"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    decoded.score(dump)
    assert "1 of 5 recordings could not be read and count as empty" in caplog.text


def test_other_utterances_are_not_scored(tmp_path, dump):
    decoded = hyps(tmp_path / "exp", "pr_ctc", {"tone_a_eng": "/p/"})
    with pytest.raises(ScoreError, match="4 of 5 in ref alone"):
        decoded.score(dump)


def test_utterances_are_those_of_any_task(tmp_path, dump):
    """A set of ASR examples alone, which has no line that ends in _pr."""
    folder = dump / "test_tone"
    for name in ("utt2lang", "utt2speaker", "utt2num_samples", "wav.scp"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(x for x in lines if "_asr " in x))
    truth = DumpSet(folder)
    assert set(truth.langs) == set(truth.durations_s) == set(PHONES)


def test_nothing_decoded_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="nothing is decoded in it; run stage 12"):
        score_experiment(tmp_path, tmp_path)


def test_no_history_is_empty(tmp_path):
    assert read_history(tmp_path) == []
