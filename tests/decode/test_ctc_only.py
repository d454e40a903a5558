"""Decoding by a model without a decoder, against stock ESPnet on the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from espnet2.bin.s2t_inference import Speech2Text
from tiny_model import CTC_SETTINGS, make_corpus, make_experiment

from powsm.decode.align import align
from powsm.decode.batch import decode_batch, items
from powsm.decode.ctc_paths import ctc_greedy
from powsm.decode.profile import DecodeError, Profile, SearchOptions
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.model import Model
from powsm.decode.recordings.samples import read_speech
from powsm.decode.transcribe import Job, transcribe
from powsm.model.find import find_model
from powsm.model.s2t_ctc import N_PREFIX
from powsm.tasks import parse_output

TASKS = ("pr", "asr", "g2p", "p2g")
GREEDY = Profile("ctc_tasks", decode="ctc", tasks=TASKS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def sharpened(exp):
    """Random weights whose best path says much: the head's scores spread widely."""
    path = exp / "valid.loss.ave.pth"
    state = torch.load(path, weights_only=True)
    state["ctc.ctc_lo.weight"] *= 30
    state["ctc.ctc_lo.bias"][0] = 0.5
    torch.save(state, path)
    return exp


@pytest.fixture(scope="module")
def exp(corpus, tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    return sharpened(make_experiment(root, corpus / "tokens", base=CTC_SETTINGS))


@pytest.fixture(scope="module")
def recogniser(exp):
    return Recogniser.load(exp)


@pytest.fixture(scope="module")
def stock(exp):
    config = yaml.safe_load((exp / "config.yaml").read_text())
    weights = exp / "valid.loss.ave.pth"
    return Speech2Text(
        exp / "config.yaml", weights, bpemodel=config["bpemodel"], beam_size=30
    )


def decode(recogniser, profile, task, folder):
    batch = items(folder, task)
    speech = [read_speech(item.audio, 960) for item in batch]
    return batch, speech, decode_batch(recogniser, profile, task, batch, speech)


@pytest.mark.parametrize("task", TASKS)
def test_greedy_is_the_best_path_of_stock(recogniser, stock, corpus, task):
    """In a batch at true lengths, where stock takes one recording after another."""
    batch, speech, records = decode(recogniser, GREEDY, task, corpus / "dump/dev")
    assert len(records) == 5
    for item, samples, record in zip(batch, speech, records, strict=True):
        symbols = {"lang_sym": item.lang_sym, "task_sym": f"<{task}>"}
        (best, *_) = stock.best_path(samples.numpy(), item.text_prev, **symbols)
        assert record["tokens"] == best[1]
        assert len(record["tokens"]) > 5


def test_batch_at_true_lengths_says_what_each_says_alone(recogniser, corpus):
    """Scores differ a little: ESPnet's convolutions read the padding beside the end."""
    batch, speech, records = decode(recogniser, GREEDY, "p2g", corpus / "dump/dev")
    for item, samples, record in zip(batch, speech, records, strict=True):
        (alone,) = decode_batch(recogniser, GREEDY, "p2g", [item], [samples])
        assert alone["tokens"] == record["tokens"]


def test_beam_is_no_worse_than_stock_and_its_own_best_path(recogniser, stock, corpus):
    """Sums over all paths of what was said, by PyTorch's CTC loss."""
    search = SearchOptions(beam_size=30)
    profile = Profile("x", decode="ctc", tasks=("pr",), search=search)
    folder = corpus / "dump/dev"
    batch, speech, _ = decode(recogniser, profile, "pr", folder)
    ids = recogniser.tokenizer.token_ids
    for item, samples in list(zip(batch, speech, strict=True))[-2:]:
        (record,) = decode_batch(recogniser, profile, "pr", [item], [samples])
        (path,) = decode_batch(recogniser, GREEDY, "pr", [item], [samples])
        scores, n = recogniser.ctc_scores([samples], [item.lang_sym], "pr", ["<na>"])

        def total(tokens, scores=scores, n=n):
            target = torch.tensor([[ids[token] for token in tokens]])
            lengths = torch.tensor([target.size(1)])
            loss = torch.nn.functional.ctc_loss(
                scores.transpose(0, 1), target, n, lengths, reduction="sum"
            )
            return -loss.item()

        symbols = {"lang_sym": item.lang_sym, "task_sym": "<pr>"}
        searched = stock(samples.numpy(), **symbols)[0][1]
        # the beam drops some of the paths that it sums
        assert total(record["tokens"]) - 0.5 < record["score"]
        assert record["score"] <= total(record["tokens"]) + 1e-3
        assert total(record["tokens"]) >= total(path["tokens"]) - 1e-3
        assert total(record["tokens"]) >= total(searched) - 1e-3


STOCK_SEARCH = SearchOptions(beam_size=30, ctc_weight=1.0, nbest=3)


@pytest.mark.parametrize("task", TASKS)
def test_search_token_by_token_is_that_of_stock(recogniser, stock, corpus, task):
    """The n best of each, with their scores; and the first of a batch."""
    profile = Profile("x", decode="joint", tasks=TASKS, search=STOCK_SEARCH)
    batch, speech, records = decode(recogniser, profile, task, corpus / "dump/dev")
    said = set()
    for item, samples, together in zip(batch, speech, records, strict=True):
        (record,) = decode_batch(recogniser, profile, task, [item], [samples])
        symbols = {"lang_sym": item.lang_sym, "task_sym": f"<{task}>"}
        stock.nbest = 3
        theirs = stock(samples.numpy(), item.text_prev, **symbols)
        assert [hyp["tokens"] for hyp in record["nbest"]] == [t[1] for t in theirs]
        scores = [float(hyp.score) for *_, hyp in theirs]
        assert [hyp["score"] for hyp in record["nbest"]] == pytest.approx(
            scores, abs=1e-3
        )
        assert together["tokens"] == record["tokens"]
        said.add(tuple(record["tokens"]))
    assert len(said) == 5


def test_language_task_and_prompt_are_heard(recogniser, corpus):
    folder = corpus / "dump/dev"
    said = {task: decode(recogniser, GREEDY, task, folder)[2] for task in TASKS}
    texts = {task: [r["tokens"] for r in rows] for task, rows in said.items()}
    assert texts["pr"] != texts["asr"]
    chain = Profile("x", decode="ctc", tasks=("p2g",), prev="predicted")
    records = decode(recogniser, chain, "p2g", folder)[2]
    for record, heard in zip(records, said["pr"], strict=True):
        assert record["text_prev"] == (heard["text"] or "<na>")


def test_heads_before_the_last_are_read_by_block(recogniser):
    speech = [torch.randn(8000, generator=torch.Generator().manual_seed(0)) * 0.1]
    asked = (speech, ["<eng>"], "asr", ["<na>"])
    last, n = recogniser.ctc_scores(*asked)
    alone, _ = recogniser.ctc_heads(*asked)
    both, _ = recogniser.ctc_heads(*asked, blocks=(2,))
    assert list(alone) == [3] and list(both) == [2, 3]
    assert torch.equal(last, alone[3]) and torch.equal(last, both[3])
    assert not torch.equal(last, both[2])
    # 51 spectrogram frames give (51 - 3) // 2 + 1 = 25 and then 12, after two symbols
    assert last.size(1) == int(n) == N_PREFIX + 12


def test_two_heads_are_read_in_one_pass(recogniser, corpus, monkeypatch):
    """What a chain hears first is not in it: the block is of the pass that answers."""
    passes = []
    heads = type(recogniser.model).heads

    def counted(self, *args, **kwargs):
        passes.append(kwargs["blocks"])
        return heads(self, *args, **kwargs)

    monkeypatch.setattr(type(recogniser.model), "heads", counted)
    profile = replace(GREEDY, blocks=(2,))
    assert profile.digest() != GREEDY.digest()
    batch, speech, records = decode(recogniser, profile, "asr", corpus / "dump/dev")
    assert passes == [(2,)]
    plain = decode(recogniser, GREEDY, "asr", corpus / "dump/dev")[2]
    assert [r["tokens"] for r in records] == [r["tokens"] for r in plain]
    langs = [item.lang_sym for item in batch]
    asked = (speech, langs, "asr", ["<na>"] * len(batch))
    scores, lens = recogniser.ctc_heads(*asked, blocks=(2,))
    found = ctc_greedy(scores[2], lens, blank=recogniser.model.blank_id)
    for record, hyp in zip(records, found, strict=True):
        tokens = recogniser.tokenizer.tokens(hyp.tokens)
        assert record["blocks"] == {"2": parse_output(tokens).text}
    assert any(r["blocks"]["2"] != r["text"] for r in records)
    chain = Profile("x", decode="ctc", tasks=("p2g",), prev="predicted", blocks=(2,))
    records = decode(recogniser, chain, "p2g", corpus / "dump/dev")[2]
    prompts = [record["text_prev"] for record in records]
    scores, lens = recogniser.ctc_heads(*(speech, langs, "p2g", prompts), blocks=(2,))
    found = ctc_greedy(scores[2], lens, blank=recogniser.model.blank_id)
    said = [recogniser.tokenizer.tokens(hyp.tokens) for hyp in found]
    assert [r["blocks"]["2"] for r in records] == [parse_output(t).text for t in said]


# ----------------------------------------------------------- what it cannot do


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (Profile("x", decode="attention"), "this one has none; use decode: ctc"),
        (
            Profile("x", decode="joint", search=SearchOptions(ctc_weight=0.3)),
            "this one has none",
        ),
        (Profile("x", decode="ctc", tasks=("lid",)), "given the language of every"),
        (Profile("x", decode="ctc", lang="detected"), "lang: detected is nothing"),
        (replace(GREEDY, blocks=(1,)), "block 1 has no CTC head; .* blocks 2 3"),
    ],
)
def test_what_it_was_not_taught_is_refused_with_the_reason(
    recogniser, corpus, profile, message
):
    with pytest.raises(DecodeError, match=message):
        decode(recogniser, profile, profile.tasks[0], corpus / "dump/dev")


def test_language_that_was_taught_is_found(corpus, tmp_path):
    conf = CTC_SETTINGS["preprocessor_conf"] | {"lang_apply_prob": 0.5}
    base = CTC_SETTINGS | {"preprocessor_conf": conf}
    taught = Recogniser.load(make_experiment(tmp_path, corpus / "tokens", base=base))
    profile = Profile("x", decode="ctc", tasks=("lid",))
    assert profile.tag("lid") == "lid_ctc"  # nothing of a decoder
    batch, speech, records = decode(taught, profile, "lid", corpus / "dump/dev")
    for record in records:
        assert record["text"] in taught.languages()
        total = np.exp(list(record["languages"].values())).sum()
        assert total == pytest.approx(1.0, abs=1e-3)  # of the two that it knows
    model = Model(find_model(tmp_path / "exp"), taught)
    (first, *_), record = speech, records[0]
    heard = model.languages(first)
    assert next(iter(heard)) == record["text"].strip("<>")
    assert model(first, lang="auto").lang == record["text"].strip("<>")


def test_model_in_hand_does_every_task_by_ctc_without_being_told(exp, recogniser):
    model = Model(find_model(exp), recogniser)
    speech = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    for task, text in (("pr", None), ("asr", None), ("g2p", "ba"), ("p2g", "ba")):
        result = model(speech, task=task, lang="ita", text=text)
        assert result.slashed and result.blocks == {}
    result = model(speech, task="asr", profile=replace(GREEDY, blocks=(2,)))
    assert list(result.blocks) == [2] and '"blocks": {"2": ' in result.to("jsonl")
    with pytest.raises(DecodeError, match="finding the language is nothing that this"):
        model.languages(speech)


# --------------------------------------------------------------- long audio


@pytest.mark.parametrize(
    ("decode", "search"),
    [
        ("ctc", SearchOptions()),
        ("ctc", SearchOptions(beam_size=3)),
        ("joint", SearchOptions(beam_size=3, ctc_weight=1.0)),
    ],
)
def test_phones_alone_come_out_and_none_in_place_of_the_prompt(
    recogniser, monkeypatch, decode, search
):
    """The head says language and task first, and would else say /t/ there."""
    ids = recogniser.tokenizer.token_ids
    said = ["<eng>", "<pr>", "<notimestamps>", "▁", "/p/", "<blank>", "/k/", "/a/"]

    def heads(speech, *_, **__):
        scores = torch.full((len(speech), len(said), len(ids)), -20.0)
        scores[:, range(len(said)), [ids[token] for token in said]] = 0.0
        scores[:, :3, ids["/t/"]] = -5.0
        scores[:, 6, ids["/t/"]] = -5.0
        return {3: scores}, torch.tensor([len(said)] * len(speech))

    monkeypatch.setattr(recogniser.model, "heads", heads)
    few = Profile("x", decode, search=search, phones=("p", "a", "t"))
    job = Job("u", torch.zeros(4800))
    for profile, text in (
        (few, "/p//t//a/"),
        (replace(few, phones="all"), "/p//k//a/"),
    ):
        (record,) = transcribe(recogniser, profile, "pr", [job])
        assert record["text"] == text


def test_long_recording_is_decoded_in_pieces_and_phones_have_times(recogniser):
    rng = np.random.default_rng(0)
    speech = torch.from_numpy(rng.normal(0, 0.1, 60_000).astype(np.float32))
    job = Job("long", speech, "<eng>")
    (record,) = transcribe(recogniser, GREEDY, "pr", [job], window_s=2.0, overlap_s=0.5)
    pieces = record["pieces"]
    assert len(pieces) > 1 and pieces[0]["start_s"] == 0.0
    assert pieces[-1]["end_s"] == pytest.approx(60_000 / 16_000)
    assert record["text"] == "".join(piece["text"] for piece in pieces)
    two = replace(GREEDY, blocks=(2,))
    (heard,) = transcribe(recogniser, two, "pr", [job], window_s=2.0, overlap_s=0.5)
    parts = [piece["blocks"]["2"] for piece in heard["pieces"]]
    assert len(parts) == len(pieces) and "".join(heard["blocks"]["2"].split()) == (
        "".join("".join(parts).split())
    )
    segments = align(recogniser, speech)
    assert all(not s.phone.startswith("<") for s in segments)
    assert all(0 <= s.start < s.end <= 60_000 / 16_000 for s in segments)
