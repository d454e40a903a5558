"""Decoding a set: records, resuming, bad audio, wrong models."""

import json
import logging
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from dump_builder import make_dump
from tiny_model import SETTINGS, make_experiment, make_tokens

from powsm.decode import dump_set
from powsm.decode.align import align
from powsm.decode.batch import (
    cut_batches,
    decode_batch,
    items,
)
from powsm.decode.dump_set import decode_set, merge
from powsm.decode.longform import ctc_frames_of_all
from powsm.decode.profile import DecodeError, Profile
from powsm.decode.recogniser import Recogniser, bytes_a_second
from powsm.decode.recordings.samples import read_speech
from powsm.decode.search import Searcher, SearchOptions
from powsm.model.find import CheckpointError, find_model
from powsm.vocabulary.phone_sets import PhoneSetError

SEARCH = SearchOptions(beam_size=2, ctc_weight=0.3, maxlenratio=-6)
JOINT = Profile("decode_joint", decode="joint", batch_seconds=2, search=SEARCH)
CTC = Profile("decode_ctc", decode="ctc", batch_seconds=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("decode")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    make_dump(root / "test", [0.6, 0.9, 0.7, 1.1, 0.5], no_text=(1,), seed=2)
    tokens = make_tokens(root / "train", root / "tokens")
    make_experiment(root, tokens)
    return root


@pytest.fixture(scope="module")
def recogniser(corpus):
    return Recogniser.load(corpus / "exp")


def decode(recogniser, profile, corpus, out, task="pr"):
    decode_set(recogniser, profile, task, corpus / "test", out)
    return join(recogniser, profile, corpus / "test", out, task)


def join(recogniser, profile, folder, out, task="pr"):
    made_with = {"profile": profile, "weights": recogniser.weights}
    return merge(folder, task, out, **made_with)


def records(path):
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def batch_of(corpus, task="pr"):
    """(items, speech) of the test set, as one batch."""
    batch = items(corpus / "test", task)
    return batch, [read_speech(item.audio, 960) for item in batch]


@pytest.mark.parametrize("profile", [JOINT, CTC], ids=["joint", "ctc"])
def test_every_utterance_gets_a_record_in_order(recogniser, profile, corpus, tmp_path):
    rows = records(decode(recogniser, profile, corpus, tmp_path))
    assert [r["utt_id"] for r in rows] == [
        f"tiny_u{n:04d}_{'eng' if n % 2 == 0 else 'ita'}" for n in range(5)
    ]
    assert [r["lang_sym"] for r in rows[:2]] == ["<eng>", "<ita>"]
    assert [r["seconds"] for r in rows] == [0.6, 0.9, 0.7, 1.1, 0.5]
    lines = (tmp_path / "text").read_text().splitlines()
    assert lines == [f"{r['utt_id']} {r['text']}".rstrip() for r in rows]
    assert not list(tmp_path.glob("part*"))


def test_an_utterance_without_text_has_no_asr(recogniser, corpus, tmp_path):
    rows = records(decode(recogniser, JOINT, corpus, tmp_path, "asr"))
    assert len(rows) == 4 and "u0001" not in str(rows)


def test_prompts_hold_language_task_and_previous_text(recogniser):
    ids, model = recogniser.tokenizer.token_ids, recogniser.model
    prompt = recogniser.prompt("<ita>", "pr")
    names = ("<ita>", "<pr>", "<notimestamps>")
    assert prompt == [model.sos, *(ids[s] for s in names)]
    prompted = recogniser.prompt("<ita>", "p2g", "/p//a/")
    assert prompted[0] == model.sop
    assert prompted[-4:-2] == [model.sos, ids["<ita>"]]
    assert [ids["/p/"], ids["/a/"]] == prompted[2:4]  # after the word-start mark


def test_a_language_without_a_token_is_refused(recogniser):
    with pytest.raises(DecodeError, match="<zul> is not in this model's vocabulary"):
        recogniser.prompt("<zul>", "pr")


def test_a_task_without_a_token_is_refused(recogniser):
    with pytest.raises(DecodeError, match="<st_eng> is not in .* model for a task"):
        recogniser.prompt("<ita>", "st_eng")


@pytest.mark.parametrize("profile", [JOINT, CTC], ids=["joint", "ctc"])
def test_languages_the_model_lacks_are_prompted_unk_and_counted(
    recogniser, corpus, tmp_path, caplog, profile
):
    folder = shutil.copytree(corpus / "test", tmp_path / "test")
    shutil.rmtree(folder / ".index", ignore_errors=True)
    text = (folder / "text").read_text()
    (folder / "text").write_text(text.replace("<ita>", "<zul>"))
    with caplog.at_level(logging.WARNING):
        decode_set(recogniser, profile, "pr", folder, tmp_path / "out")
    hyp = records(join(recogniser, profile, folder, tmp_path / "out"))
    told = [record["lang_sym"] for record in hyp]
    if profile is JOINT:
        assert told == ["<eng>", "<unk>", "<eng>", "<unk>", "<eng>"]
        expected = "2 of 5 utterances, which are prompted <unk>: <zul>=2"
        assert expected in caplog.text
    else:  # the CTC head is told no language
        assert "prompted" not in caplog.text


@pytest.mark.parametrize(
    ("lang", "expected"), [("<eng>", {"<eng>"}), ("<unk>", {"<unk>"})]
)
def test_the_profile_may_set_the_language(recogniser, corpus, tmp_path, lang, expected):
    profile = Profile("decode_l", decode="joint", lang=lang, search=SEARCH)
    rows = records(decode(recogniser, profile, corpus, tmp_path))
    assert {r["lang_sym"] for r in rows} == expected
    assert profile.tag("pr") == f"pr_joint_{lang.strip('<>')}"


def test_lid_lists_languages_with_probabilities(recogniser, corpus, tmp_path):
    profile = Profile("decode_lid", tasks=("lid",))
    for row in records(decode(recogniser, profile, corpus, tmp_path, "lid")):
        total = sum(torch.tensor(x).exp() for x in row["languages"].values())
        assert row["languages"].keys() == {"<eng>", "<ita>"}
        assert float(total) == pytest.approx(1.0, abs=1e-3)
        assert row["text"] == max(row["languages"], key=row["languages"].get)
    assert profile.tag("lid") == "lid"


def test_lid_hears_each_recording_once_and_writes_the_five_likeliest(
    recogniser, corpus, monkeypatch
):
    codes = ("eng", "ita", "deu", "fra", "spa", "por", "nld")
    heard = [(f"<{code}>", -float(rank)) for rank, code in enumerate(codes)]
    monkeypatch.setattr(
        Recogniser, "detect_languages", lambda self, memory, *_: [heard] * len(memory)
    )
    todo = items(corpus / "test", "lid")
    assert [i.utt_id for i in todo] == [i.utt_id for i in items(corpus / "test", "pr")]
    speech = [read_speech(item.audio, 960) for item in todo]
    profile = Profile("decode_lid", tasks=("lid",))
    for row in decode_batch(recogniser, profile, "lid", todo, speech):
        assert row["text"] == "<eng>" and [*row["languages"].items()] == heard[:5]


def test_a_detected_language_is_the_one_lid_hears(recogniser, corpus, tmp_path):
    lid = Profile("decode_lid", tasks=("lid",))
    heard = records(decode(recogniser, lid, corpus, tmp_path / "lid", "lid"))
    profile = Profile("decode_d", decode="joint", lang="detected", search=SEARCH)
    rows = records(decode(recogniser, profile, corpus, tmp_path / "pr"))
    assert [r["lang_sym"] for r in rows] == [r["text"] for r in heard]


def test_batches_are_cut_by_length(corpus):
    batches = cut_batches(items(corpus / "test", "pr"), JOINT, 2)
    for batch in batches:
        assert len(batch) * batch[0].n_samples <= 2 * 16_000 or len(batch) == 1
    lengths = [item.n_samples for batch in batches for item in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    recogniser, corpus, tmp_path
):
    whole = decode(recogniser, JOINT, corpus, tmp_path / "whole").read_bytes()
    out = tmp_path / "broken"
    part = decode_set(recogniser, JOINT, "pr", corpus / "test", out)
    lines = part.read_text().splitlines(keepends=True)
    # killed in the second batch, in the middle of a line
    first = len(cut_batches(items(corpus / "test", "pr"), JOINT, 2)[0])
    part.write_text("".join(lines[:first]) + lines[first][:30])
    with pytest.raises(DecodeError, match="are missing"):
        join(recogniser, JOINT, corpus / "test", out)
    again = decode(recogniser, JOINT, corpus, out)
    assert again.read_bytes() == whole


def test_two_ranks_give_what_one_gives(recogniser, corpus, tmp_path):
    one = decode(recogniser, JOINT, corpus, tmp_path / "one").read_bytes()
    for rank in range(2):
        decode_set(
            recogniser,
            JOINT,
            "pr",
            corpus / "test",
            tmp_path / "two",
            rank=rank,
            world_size=2,
        )
    two = join(recogniser, JOINT, corpus / "test", tmp_path / "two")
    assert two.read_bytes() == one


@pytest.mark.parametrize("seconds", [(1.2, 4.0), (4.0, 1.2)])
def test_ranks_whose_gpus_differ_share_a_set(
    recogniser, corpus, tmp_path, monkeypatch, seconds
):
    profile = replace(CTC, batch_seconds="auto")
    monkeypatch.setattr(dump_set, "BATCH_S", 1.2)  # so that there are units to share
    one = decode(recogniser, profile, corpus, tmp_path / "one")
    for rank, size in enumerate(seconds):
        monkeypatch.setattr(Recogniser, "batch_seconds", lambda *_, size=size: size)
        where = (corpus / "test", tmp_path / "two")
        decode_set(recogniser, profile, "pr", *where, rank=rank, world_size=2)
    two = join(recogniser, profile, *where)
    texts = [[(r["utt_id"], r["text"]) for r in records(path)] for path in (one, two)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("n_fft", [512, 2048])
def test_a_recording_in_a_batch_is_encoded_as_if_alone(corpus, tmp_path, n_fft):
    """The last frame would hear zeros, where alone it hears the end mirrored."""
    frontend = {"fs": 16_000, "n_fft": n_fft, "hop_length": 160}
    base = SETTINGS | {"frontend_conf": frontend}
    exp = make_experiment(tmp_path, corpus / "tokens", base=base)
    recogniser = Recogniser.load(exp)
    generator = torch.Generator().manual_seed(0)
    lens = [9_600, 17_600, 9_920, 8_000, 12_345]
    speech = [torch.randn(n, generator=generator) / 10 for n in lens]
    memory, n_frames = recogniser.encode(speech)
    for row, n, samples in zip(memory, n_frames.tolist(), speech, strict=True):
        (alone,), (n_alone,) = recogniser.model.encode(
            samples[None], torch.tensor([len(samples)])
        )
        assert n == int(n_alone)
        torch.testing.assert_close(row[:n], alone, rtol=1e-4, atol=1e-4)


def test_tables_of_ctc_scores_are_made_some_recordings_at_a_time(
    recogniser, corpus, tmp_path, monkeypatch
):
    profile = replace(CTC, batch_seconds=100)
    speech = [read_speech(item.audio, 1) for item in items(corpus / "test", "pr")]
    whole = decode(recogniser, profile, corpus, tmp_path / "whole").read_bytes()
    frames = ctc_frames_of_all(recogniser, speech)
    monkeypatch.setattr("powsm.decode.recogniser._CELLS", 1)
    parts = decode(recogniser, profile, corpus, tmp_path / "parts").read_bytes()
    assert parts == whole
    for part, one in zip(ctc_frames_of_all(recogniser, speech), frames, strict=True):
        assert part.path.tolist() == one.path.tolist()
        torch.testing.assert_close(part.scores, one.scores)


def test_free_memory_decides_how_much_a_gpu_decodes_at_once(recogniser, monkeypatch):
    profile = replace(JOINT, batch_seconds="auto")
    assert recogniser.batch_seconds(profile) == 100
    on_gpu = replace(recogniser, device=torch.device("cuda"))
    each = bytes_a_second(recogniser.model, profile.search.beam_size)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 30 * each)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10 * each)
    for free, seconds in ((480, 400), (1, 20), (1e9, 1280)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, x=free: (x * each, 0))
        assert on_gpu.batch_seconds(profile) == pytest.approx(seconds)
        assert on_gpu.batch_seconds(JOINT) == 2
    assert bytes_a_second(recogniser.model, 10) > each
    # as of `ctc_weight: 1`
    monkeypatch.setitem(recogniser.model._modules, "decoder", None)
    assert 0 < bytes_a_second(recogniser.model, 10) < each
    assert profile.digest() == replace(profile, batch_seconds=100.0).digest()


def test_what_other_settings_or_data_left_is_not_mixed_in(recogniser, corpus, tmp_path):
    folder = make_dump(tmp_path / "test", [0.6, 0.9, 0.7], seed=5)
    out = tmp_path / "out"
    decode_set(recogniser, CTC, "pr", folder, out, rank=1, world_size=2)
    rows = records(decode(recogniser, JOINT, corpus, out))
    assert {r["profile"] for r in rows} == {JOINT.digest()} != {CTC.digest()}
    assert not list(out.glob("part*"))
    # killed, then the set was made anew: same names, other audio
    decode_set(recogniser, JOINT, "pr", folder, out, rank=1, world_size=2)
    assert records(decode(recogniser, JOINT, corpus, out)) == rows


def test_the_shortest_recording_is_padded_to_the_published_window(recogniser, tmp_path):
    folder = make_dump(tmp_path / "test", [0.6], seed=3)
    soundfile.write(folder / "wav/tiny_u0000_eng.wav", 0.1 * np.ones(100), 16_000)
    for window, is_read in (("own", False), ("published", True)):
        profile = replace(CTC, window=window)
        (row,) = records(decode(recogniser, profile, tmp_path, tmp_path / window))
        assert ("error" in row) != is_read


def test_audio_that_cannot_be_read_harms_only_itself(
    recogniser, corpus, tmp_path, caplog
):
    folder = make_dump(tmp_path / "test", [0.6, 0.9, 0.7], seed=3)
    (folder / "wav/tiny_u0001_ita.wav").write_text("this is no sound")
    with caplog.at_level(logging.WARNING):
        decode_set(recogniser, CTC, "pr", folder, tmp_path / "out")
        rows = records(join(recogniser, CTC, folder, tmp_path / "out"))
    assert ["error" in r for r in rows] == [False, True, False]
    assert rows[1]["text"] == ""
    assert "1 of 3 could not be read" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ctc.ctc_lo.bias"), "ctc.ctc_lo.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra"),
        (lambda s: s.update({"ctc.ctc_lo.bias": torch.zeros(3)}), "ctc.ctc_lo.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(corpus, tmp_path, change, message):
    state = torch.load(corpus / "exp/valid.loss.ave.pth", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=message):
        Recogniser.load(find_model(corpus / "exp", tmp_path / "bad.pth"))


def test_an_experiment_without_a_model_says_so(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match="run stage 11 to its end"):
        Recogniser.load(tmp_path)


def test_padding_to_the_window_lengthens_what_is_encoded(recogniser):
    speech = [torch.zeros(16_000)]
    assert int(recogniser.encode(speech)[1]) < 30
    assert int(recogniser.encode(speech, "published")[1]) == 499  # frames of 20 s


def test_what_lies_behind_the_window_of_a_profile_is_counted(
    recogniser, tmp_path, caplog
):
    folder = make_dump(tmp_path / "test", [0.5, 20.5, 0.6], seed=3)
    for window, expected in (("own", 0), ("published", 1)):
        profile = Profile(f"decode_{window}", decode="ctc", window=window)
        decode_set(recogniser, profile, "pr", folder, tmp_path / window)
        said = "of 1 of 3 utterances, such as tiny_u0001_ita, no more than 20 s are"
        assert caplog.text.count(said) == expected


def test_pr_p2g_prompts_with_its_own_phones(recogniser, corpus, tmp_path):
    """The chain gives what PR and then P2G, prompted by hand, give."""
    pr = Profile("decode_a", decode="joint", tasks=("pr",), search=SEARCH)
    heard = {
        r["utt_id"]: r["text"]
        for r in records(decode(recogniser, pr, corpus, tmp_path / "pr"))
    }
    chain = Profile(
        "decode_c", decode="joint", tasks=("p2g",), prev="predicted", search=SEARCH
    )
    rows = records(decode(recogniser, chain, corpus, tmp_path / "p2g", "p2g"))
    assert len(rows) == 4  # one of five has no text
    assert [r["text_prev"] for r in rows] == [
        heard[r["utt_id"]] or "<na>" for r in rows
    ]
    by_hand = [
        replace(item, text_prev=rows[i]["text_prev"])
        for i, item in enumerate(items(corpus / "test", "p2g"))
    ]
    gold = Profile("decode_g", decode="joint", tasks=("p2g",), search=SEARCH)
    speech = [read_speech(item.audio, 960) for item in by_hand]
    again = decode_batch(recogniser, gold, "p2g", by_hand, speech)
    assert [r["text"] for r in again] == [r["text"] for r in rows]
    assert chain.tag("p2g") == "p2g_joint_predicted"


def test_the_encoder_runs_once_for_a_chain(recogniser, corpus, tmp_path, monkeypatch):
    calls = []
    encode = recogniser.model.encode

    def counted(*args):
        calls.append(1)
        return encode(*args)

    monkeypatch.setattr(recogniser.model, "encode", counted)
    chain = Profile(
        "decode_c", decode="joint", tasks=("g2p",), prev="predicted", search=SEARCH
    )
    decode(recogniser, chain, corpus, tmp_path, "g2p")
    size = recogniser.batch_seconds(chain)
    assert len(calls) == len(cut_batches(items(corpus / "test", "g2p"), chain, size))


def test_speech_only_g2p_has_no_prompt(recogniser, corpus):
    profile = Profile(
        "decode_s", decode="joint", tasks=("g2p",), prev="none", search=SEARCH
    )
    batch = items(corpus / "test", "g2p")
    speech = [read_speech(item.audio, 960) for item in batch]
    bare = [replace(item, text_prev="<na>") for item in batch]
    gold = Profile("decode_g", decode="joint", tasks=("g2p",), search=SEARCH)
    assert [
        (r["text"], r["score"])
        for r in decode_batch(recogniser, profile, "g2p", batch, speech)
    ] == [
        (r["text"], r["score"])
        for r in decode_batch(recogniser, gold, "g2p", bare, speech)
    ]


def test_text_only_g2p_does_not_hear_the_speech(recogniser, corpus):
    profile = Profile(
        "decode_t", decode="joint", tasks=("g2p",), audio="silence", search=SEARCH
    )
    batch = items(corpus / "test", "g2p")
    speech = [read_speech(item.audio, 960) for item in batch]
    other = [samples.flip(0) / 2 for samples in speech]
    assert decode_batch(recogniser, profile, "g2p", batch, speech) == decode_batch(
        recogniser, profile, "g2p", batch, other
    )


def test_each_bad_recording_has_a_clear_line_and_the_rest_goes_on(recogniser, tmp_path):
    folder = make_dump(tmp_path / "test", [0.6] * 7, seed=3)
    wavs = sorted((folder / "wav").iterdir())
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    wavs[0].write_bytes(b"")
    soundfile.write(wavs[1], noise[:800], 16_000)  # 0.05 s
    soundfile.write(wavs[2], np.zeros(16_000), 16_000)  # silence is no fault
    nan = np.where(np.arange(16_000) == 50, np.nan, noise)
    soundfile.write(wavs[3], nan, 16_000, subtype="FLOAT")
    soundfile.write(wavs[4], np.stack([noise, noise], 1), 8_000)
    wavs[5].write_text("this is no sound")
    decode_set(recogniser, JOINT, "pr", folder, tmp_path / "out")
    rows = records(join(recogniser, JOINT, folder, tmp_path / "out"))
    lines = [row.get("error", "").removeprefix(f"{wav}: ") for row, wav in
             zip(rows, wavs, strict=True)]  # fmt: skip
    assert lines[0].startswith("these 0 bytes do not decode as audio")
    assert lines[1] == "0.050 s is too short to encode; the model needs 0.060 s"
    assert lines[2] == "" and np.isfinite(rows[2]["score"])
    assert lines[3].startswith("holds NaN or infinite samples")
    assert lines[4].startswith("2 channels, expected 1")
    assert lines[5].startswith("these 16 bytes do not decode as audio")
    assert lines[6] == ""


def test_a_batch_too_large_for_the_device_is_halved(
    recogniser, corpus, monkeypatch, caplog
):
    batch, speech = batch_of(corpus)
    whole = decode_batch(recogniser, JOINT, "pr", batch, speech)
    search, encode = Searcher.search, Recogniser.encode
    sizes = []

    def small_device(self, memory, lens, prompts):
        if len(prompts) > 2:
            raise torch.OutOfMemoryError
        return search(self, memory, lens, prompts)

    def smaller_device(self, speech, window):
        sizes.append(len(speech))
        if len(speech) > 3:
            raise torch.OutOfMemoryError
        return encode(self, speech, window)

    monkeypatch.setattr(Searcher, "search", small_device)
    monkeypatch.setattr(Recogniser, "encode", smaller_device)
    halves = decode_batch(recogniser, JOINT, "pr", batch, speech)
    assert sizes == [5, 2, 3, 1, 2]  # 5 do not encode, 3 are not searched
    assert [r["text"] for r in halves] == [r["text"] for r in whole]
    assert "not enough for 5 utterances" in caplog.text

    def no_device(self, speech, window):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Recogniser, "encode", no_device)
    with pytest.raises(DecodeError, match="u0000_eng: 0.6 s of audio do not fit"):
        decode_batch(recogniser, JOINT, "pr", batch, speech)


@pytest.mark.parametrize("profile", [JOINT, CTC], ids=["joint", "ctc"])
def test_bfloat16_stays_near_float32(recogniser, corpus, profile):
    batch, speech = batch_of(corpus)
    full = decode_batch(recogniser, profile, "pr", batch, speech)
    half = replace(profile, dtype="bfloat16")
    found = decode_batch(recogniser, half, "pr", batch, speech)
    assert [r["score"] for r in found] != [r["score"] for r in full]
    for a, b in zip(full, found, strict=True):
        assert math.isfinite(b["score"])
        if a["tokens"] == b["tokens"]:
            assert b["score"] == pytest.approx(a["score"], rel=0.05, abs=0.5)


def test_nbest_lists_hypotheses_with_the_scores_they_are_ranked_by(recogniser, corpus):
    search = replace(SEARCH, beam_size=3, nbest=3)
    profile = Profile("decode_n", decode="joint", search=search)
    for record in decode_batch(recogniser, profile, "pr", *batch_of(corpus)):
        hyps = record["nbest"]
        assert 1 < len(hyps) <= 3
        assert {key: record[key] for key in hyps[0]} == hyps[0]
        totals = [hyp["score"] for hyp in hyps]
        assert totals == sorted(totals, reverse=True)
        for hyp in hyps:
            scores = hyp["scores"]
            total = 0.7 * scores["decoder"] + 0.3 * scores["ctc"]
            assert hyp["score"] == pytest.approx(total, abs=1e-3)


def test_ctc_with_a_beam_sums_paths(recogniser, corpus):
    batch, speech = batch_of(corpus)
    greedy = decode_batch(recogniser, CTC, "pr", batch, speech)
    beam = replace(CTC, search=SearchOptions(beam_size=4, nbest=2))
    for best, found in zip(
        greedy, decode_batch(recogniser, beam, "pr", batch, speech), strict=True
    ):
        assert len(found["nbest"]) == 2
        assert found["score"] >= best["score"]  # of one path alone


@pytest.mark.parametrize("profile", [JOINT, CTC], ids=["joint", "ctc"])
def test_only_phones_of_the_set_come_out(recogniser, corpus, profile):
    batch, speech = batch_of(corpus)
    free = decode_batch(recogniser, profile, "pr", batch, speech)
    said = {token for record in free for token in record["tokens"]}
    assert not said <= {"/p/", "/a/", "▁"}
    narrow = replace(profile, phones=("p", "aː"))  # length does not matter
    found = decode_batch(recogniser, narrow, "pr", batch, speech)
    assert {t for r in found for t in r["tokens"]} <= {"/p/", "/a/", "▁"}
    assert narrow.tag("pr") == f"pr_{profile.decode}_inventory"


def test_words_that_prompt_g2p_are_not_barred(recogniser, corpus):
    batch, speech = batch_of(corpus, "g2p")
    free = Profile("d", "joint", ("g2p",), prev="predicted", search=SEARCH)
    narrow = replace(free, phones=("p",))
    prompts = [
        [r["text_prev"] for r in decode_batch(recogniser, p, "g2p", batch, speech)]
        for p in (free, narrow)
    ]
    assert prompts[0] == prompts[1] and any(map(str.isalpha, "".join(prompts[0])))


def test_a_language_stands_for_its_phones_in_training(recogniser, corpus):
    batch, speech = batch_of(corpus)
    as_lang = decode_batch(
        recogniser, replace(CTC, phones="Italian"), "pr", batch, speech
    )
    rows = (corpus / "train/text.ctc").read_text().splitlines()
    phones = {p for row in rows if "_ita_pr" in row for p in row.split("/")[1::2]}
    by_hand = replace(CTC, phones=tuple(sorted(phones)))
    as_list = decode_batch(recogniser, by_hand, "pr", batch, speech)
    assert [r["text"] for r in as_lang] == [r["text"] for r in as_list]
    with pytest.raises(PhoneSetError, match="training had no language .* eng ita"):
        decode_batch(recogniser, replace(CTC, phones="deu"), "pr", batch, speech)


def test_a_language_that_is_named_twice_counts_once(recogniser, corpus):
    _, speech = batch_of(corpus)
    once, twice = (
        recogniser.languages_of(speech, among=among)
        for among in (["eng", "ita"], ["eng", "eng", "ita"])
    )
    assert twice == once


def test_languages_may_be_restricted(recogniser, corpus):
    batch, speech = batch_of(corpus)
    lid = Profile("decode_lid", tasks=("lid",), languages=("ita",))
    for record in decode_batch(recogniser, lid, "lid", batch, speech):
        assert record["languages"] == {"<ita>": 0.0}  # all the probability
    detected = replace(JOINT, lang="detected", languages=("eng",))
    found = decode_batch(recogniser, detected, "pr", batch, speech)
    assert {record["lang_sym"] for record in found} == {"<eng>"}
    unknown = replace(lid, languages=("ita", "zul"))
    with pytest.raises(DecodeError, match="<zul> is not in this model's vocabulary"):
        decode_batch(recogniser, unknown, "lid", batch, speech)


def test_a_beam_of_ctc_is_as_wide_as_the_profile_says(recogniser, corpus):
    for size in (2, 12):
        search = SearchOptions(beam_size=size, nbest=size)
        rows = decode_batch(
            recogniser, replace(CTC, search=search), "pr", *batch_of(corpus)
        )
        assert [len(row["nbest"]) for row in rows] == [size] * len(rows)


def test_a_quiet_recording_of_a_set_is_said_or_made_louder(tmp_path, caplog):
    path = tmp_path / "a.flac"
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    soundfile.write(path, 0.001 * noise.numpy(), 16_000, subtype="PCM_24")
    loud = read_speech(str(path), 960, is_levelled=True)
    assert float(loud.square().mean().sqrt()) == pytest.approx(0.1, rel=0.05)
    assert "a.flac" not in caplog.text
    quiet = read_speech(str(path), 960)
    assert float(quiet.square().mean().sqrt()) == pytest.approx(0.001, rel=0.05)
    assert "a.flac: its level is -60 dB" in caplog.text


def test_a_model_without_languages_hears_none(recogniser, corpus, monkeypatch):
    monkeypatch.setattr(Recogniser, "languages", lambda self: [])  # a corpus of `und`
    for profile, task in ((JOINT, "lid"), (replace(JOINT, lang="detected"), "pr")):
        with pytest.raises(DecodeError, match="no language is in this .* use <unk>"):
            decode_batch(
                recogniser, replace(profile, tasks=(task,)), task, *batch_of(corpus)
            )


def test_a_head_of_phones_begins_a_word_where_it_says_unknown(
    corpus, tmp_path, monkeypatch
):
    """And no other phone comes there where some alone may be said."""
    conf = SETTINGS["model_conf"] | {"ctc_vocab": "phones"}
    exp = make_experiment(
        tmp_path, corpus / "tokens", base=SETTINGS | {"model_conf": conf}
    )
    recogniser = Recogniser.load(exp)
    ids = recogniser.tokenizer.token_ids

    def log_softmax(memory):
        scores = torch.full((*memory.shape[:2], len(ids)), -20.0)
        scores[..., 0] = -10.0
        for t, token in enumerate(("<unk>", "/p/", "<unk>", "/a/")):
            scores[:, t, [ids[token], ids["/t/"]]] = torch.tensor([0.0, -5.0])
        return scores

    monkeypatch.setattr(recogniser.model.ctc, "log_softmax", log_softmax)
    monkeypatch.setattr(recogniser.model.ctc.ctc_lo, "forward", log_softmax)
    alone = Profile("x", "joint", search=SearchOptions(beam_size=3, ctc_weight=1.0))
    few = [replace(profile, phones=("p", "a", "t")) for profile in (CTC, alone)]
    for profile in (CTC, alone, *few):
        for row in decode_batch(recogniser, profile, "pr", *batch_of(corpus)):
            assert row["tokens"] == ["▁", "/p/", "▁", "/a/"]


# --- a CTC head that was taught code points (figure 2) --------------------------------


@pytest.fixture(scope="module", params=["code_points", "code_points_with_length"])
def of_code_points(corpus, tmp_path_factory, request):
    exp = tmp_path_factory.mktemp("code_points") / "exp"
    shutil.copytree(corpus / "exp", exp)
    settings = yaml.safe_load((exp / "config.yaml").read_text())
    settings["powsm"]["ctc_target"] = request.param
    (exp / "config.yaml").write_text(yaml.safe_dump(settings))
    return Recogniser.load(exp)


P2G = SearchOptions(beam_size=1, maxlenratio=-6)
READS_CTC = [
    JOINT,
    CTC,
    replace(CTC, search=SearchOptions(beam_size=3)),
    Profile("bound", search=replace(P2G, ctc_length_bound=1.0)),
    Profile(
        *("first", "attention", ("p2g",)),
        prev="predicted",
        search=P2G,
        first_search=SEARCH,
    ),
]


@pytest.mark.parametrize("profile", READS_CTC, ids=lambda profile: profile.name)
def test_ctc_of_code_points_is_not_read_as_phones(of_code_points, corpus, profile):
    (task,) = profile.tasks
    with pytest.raises(
        DecodeError, match=r"says code points \(ctc_target code"
    ) as told:
        decode_batch(of_code_points, profile, task, *batch_of(corpus, task))
    assert "\n" not in str(told.value)


def test_ctc_of_code_points_neither_aligns_nor_reads_long_audio(of_code_points, corpus):
    _, (speech, *_) = batch_of(corpus)
    for wanted in (["p", "a"], None):
        with pytest.raises(DecodeError, match="says code points"):
            align(of_code_points, speech, wanted)


def test_a_model_of_code_points_is_decoded_by_its_decoder(of_code_points, corpus):
    profile = Profile("attention", search=replace(P2G, maxlenratio=-3))
    assert len(decode_batch(of_code_points, profile, "pr", *batch_of(corpus))) == 5


@pytest.fixture(scope="module")
def without_ctc(corpus):
    """As `model_conf.ctc_weight: 0` makes it."""
    recogniser = Recogniser.load(corpus / "exp")
    recogniser.model.ctc = None
    return recogniser


@pytest.mark.parametrize("profile", READS_CTC, ids=lambda profile: profile.name)
def test_a_model_without_ctc_says_what_it_can_be_decoded_with(
    without_ctc, corpus, profile
):
    (task,) = profile.tasks
    with pytest.raises(DecodeError, match="no CTC head .* decode: attention"):
        decode_batch(without_ctc, profile, task, *batch_of(corpus, task))


def test_a_model_without_ctc_neither_aligns_nor_reads_long_audio(without_ctc, corpus):
    _, (speech, *_) = batch_of(corpus)
    for wanted in (["p", "a"], None):
        with pytest.raises(DecodeError, match="no CTC head"):
            align(without_ctc, speech, wanted)
