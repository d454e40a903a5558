"""Training that begins with another model: tokens keep their weights by name."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import sentencepiece
import torch
from dump_builder import make_dump
from published_model import make_published
from tiny_model import (
    CTC_SETTINGS,
    SETTINGS,
    make_args,
    make_experiment,
    make_tokens,
)

from powsm.model.build import task_of_model
from powsm.model.find import CheckpointError
from powsm.model.start_from import (
    NewTokens,
    check_same_tokens,
    extend_pieces,
    load_initial,
    regrow,
    start_from,
)
from powsm.train.run import train
from powsm.vocabulary.phone_sets import count_phones, phones_of_lang
from powsm.vocabulary.tokenizer import Tokenizer, read_token_list

OLD = ["<blank>", "<unk>", "<eng>", "<ita>", "/p/", "/a/", "▁a", "<sos>"]
NEW = [*OLD[:-1], "<rus>", "/b/", "<sos>"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Phones and texts of English and Italian in `old`; Russian with more in `new`."""
    root = tmp_path_factory.mktemp("finetune")
    make_dump(root / "old/train", [0.6, 0.8, 1.0, 0.7], seed=1)
    make_dump(root / "new/train", [0.7, 0.9], langs=("rus",), seed=1)
    make_dump(root / "new/dev", [0.8], langs=("rus",), seed=2)
    for name in ("train/text", "train/text.prev", "train/text.ctc"):
        path = root / "new" / name
        path.write_text(path.read_text().replace("/t/", "/tʲ/").replace("te", "тe"))
    make_experiment(root, make_tokens(root / "old/train", root / "tokens"))
    return root


def test_a_token_keeps_its_row_and_a_new_one_gets_the_mean_of_its_kind():
    rows = torch.arange(8.0)[:, None] * torch.tensor([[1.0, 10.0]])
    state = {"ctc.ctc_lo.weight": rows, "ctc.ctc_lo.bias": rows[:, 0], "x": rows}
    grown = regrow(state, OLD, NEW)
    # <rus> between <eng> and <ita>, rows 2 and 3; /b/ between /p/ and /a/, 4 and 5
    expected = [0.0, 1, 2, 3, 4, 5, 6, 2.5, 4.5, 7]
    assert grown["ctc.ctc_lo.bias"].tolist() == expected
    assert grown["ctc.ctc_lo.weight"][:, 1].tolist() == [10 * x for x in expected]
    assert grown["x"] is rows


def test_conditioning_layer_grows_by_columns():
    state = {"encoder.conditioning_layer.weight": torch.arange(8.0)[None]}
    grown = regrow(state, OLD, NEW)["encoder.conditioning_layer.weight"]
    assert grown.tolist() == [[0, 1, 2, 3, 4, 5, 6, 2.5, 4.5, 7]]


def test_head_of_phones_alone_grows_by_phones():
    """Of <blank>, <unk>, /p/ and /a/; the decoder's rows are of all tokens as ever."""
    head = torch.tensor([0.0, 1, 4, 5])
    state = {"ctc.ctc_lo.bias": head, "decoder.output_layer.bias": torch.arange(8.0)}
    grown = regrow(state, OLD, NEW)
    assert grown["ctc.ctc_lo.bias"].tolist() == [0, 1, 4, 5, 4.5]
    assert len(grown["decoder.output_layer.bias"]) == len(NEW)


def test_head_of_phones_alone_begins_as_it_was(corpus, tmp_path):
    conf = SETTINGS["model_conf"] | {"ctc_vocab": "phones"}
    exp = make_experiment(
        tmp_path, corpus / "tokens", base=SETTINGS | {"model_conf": conf}
    )
    start_from(str(exp), corpus / "new/train", tmp_path / "init", extend_vocab=True)
    init = str(tmp_path / "init/init.pth")
    args = make_args(tmp_path / "init", tmp_path, model_conf=conf)
    load_initial(task_of_model(args.model).build_model(args), init)
    args = make_args(tmp_path / "init", tmp_path)
    with pytest.raises(CheckpointError, match="wants .* .model_conf.ctc_vocab: of all"):
        load_initial(task_of_model(args.model).build_model(args), init)


def test_rows_of_another_vocabulary_are_refused():
    with pytest.raises(CheckpointError, match="for 7 tokens, the vocabulary has 8"):
        regrow({"ctc.ctc_lo.bias": torch.zeros(7)}, OLD, NEW)


def test_a_vocabulary_without_phones_has_no_mean_for_new_ones():
    old = ["<blank>", "<unk>", "<eng>", "▁a", "<sos>"]  # as of OWSM
    with pytest.raises(CheckpointError, match="has no phone, and .* such as /b/"):
        regrow({"ctc.ctc_lo.bias": torch.zeros(5)}, old, [*old, "/b/"])


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (["<blank>", "<unk>", "<ita>"], r"token 2 \(of 8 and 3\): <eng> and <ita>"),
        (OLD[:6], r"token 6 \(of 8 and 6\): ▁a and missing"),
        ([*OLD, "x"], r"token 8 \(of 8 and 9\): missing and x"),
    ],
)
def test_first_difference_of_vocabularies_is_named(theirs, message):
    with pytest.raises(CheckpointError, match=message):
        check_same_tokens(OLD, theirs, "here")


def test_added_pieces_change_no_other_token(corpus):
    old_model = (corpus / "tokens/bpe.model").read_bytes()
    old = sentencepiece.SentencePieceProcessor(model_proto=old_model)
    new = sentencepiece.SentencePieceProcessor(
        model_proto=extend_pieces(old_model, NewTokens(["<rus>"], ["/tʲ/"], ["т"]))
    )
    n = old.get_piece_size()
    assert new.get_piece_size() == n + 3
    pieces = new.encode("<rus><pr>/p//tʲ/ т", out_type=str)
    assert pieces == ["▁", "<rus>", "<pr>", "/p/", "/tʲ/", "▁", "т"]
    for text in ("<eng><pr><notimestamps> /p//a/", "pe ah te", "ee ka oo"):
        assert new.encode(text) == old.encode(text)


def test_missing_phone_without_extension_is_named(corpus, tmp_path):
    with pytest.raises(CheckpointError, match="<rus>.*/tʲ/.*--extend_vocab"):
        start_from(
            str(corpus / "exp"), corpus / "new/train", tmp_path, extend_vocab=False
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("new", "is_refused"),
    [
        (NewTokens(["<rus>"], [], []), True),
        (NewTokens([], ["/tʲ/"], []), True),
        (NewTokens([], [], ["т"]), False),  # spelt as <unk>
    ],
)
def test_a_language_or_a_phone_that_is_missing_is_refused(
    corpus, tmp_path, monkeypatch, new, is_refused
):
    monkeypatch.setattr(NewTokens, "find", lambda *_: new)
    asked = str(corpus / "exp"), corpus / "new/train", tmp_path
    told = pytest.raises(CheckpointError, match="has no tokens for 1 (lang|phones)")
    with told if is_refused else nullcontext():
        start_from(*asked, extend_vocab=False)
    assert is_refused == (not list(tmp_path.iterdir()))


def test_nothing_is_missing_from_the_own_training_set(corpus, tmp_path):
    told = start_from(
        str(corpus / "exp"), corpus / "old/train", tmp_path, extend_vocab=False
    )
    assert told.endswith("not in its vocabulary: nothing")
    for name in ("tokens.txt", "bpe.model", "nlsyms.txt"):
        assert (tmp_path / name).read_bytes() == (corpus / "tokens" / name).read_bytes()
    before = torch.load(corpus / "exp/valid.loss.ave.pth", weights_only=True)
    after = torch.load(tmp_path / "init.pth", weights_only=True)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_phones_of_old_and_new_languages_are_known(corpus, tmp_path):
    """So that a model that went on is decoded with the phones of a language."""
    start_from(str(corpus / "exp"), corpus / "new/train", tmp_path, extend_vocab=True)
    new = count_phones(corpus / "new/train")
    assert "tʲ" in phones_of_lang(tmp_path, "rus")
    counts = json.loads((tmp_path / "phones_by_lang.json").read_text())
    assert counts == count_phones(corpus / "old/train") | new
    start_from(str(corpus / "exp"), corpus / "old/train", tmp_path, extend_vocab=False)
    counts = json.loads((tmp_path / "phones_by_lang.json").read_text())
    once = count_phones(corpus / "old/train")
    assert counts["eng"] == {phone: 2 * n for phone, n in once["eng"].items()}


def build(token_dir, out, **changes):
    out.mkdir(exist_ok=True)
    return (
        task_of_model("powsm").build_model(make_args(token_dir, out, **changes)).eval()
    )


def test_extended_model_gives_old_tokens_the_same_scores(corpus, tmp_path):
    start_from(str(corpus / "exp"), corpus / "new/train", tmp_path, extend_vocab=True)
    old, new = build(corpus / "tokens", tmp_path / "a"), build(tmp_path, tmp_path / "b")
    load_initial(old, str(corpus / "exp/valid.loss.ave.pth"))
    load_initial(new, str(tmp_path / "init.pth"))
    assert {"<rus>", "/tʲ/", "т"} <= set(new.token_list) - set(old.token_list)
    assert new.token_list[new.eos] == "<eos>"
    kept = [new.token_list.index(token) for token in old.token_list]
    speech, lens = torch.randn(1, 9000), torch.tensor([9000])
    with torch.no_grad():
        scores = [m.ctc.ctc_lo(m.encode(speech, lens)[0]) for m in (old, new)]
        torch.testing.assert_close(scores[1][..., kept], scores[0])
        text = torch.tensor([[2, 3, 4]])
        moved = torch.tensor([[kept[i] for i in (2, 3, 4)]])
        memory = old.encode(speech, lens)
        one, other = (
            m.decoder(*memory, ids, torch.tensor([3]))[0]
            for m, ids in ((old, text), (new, moved))
        )
        torch.testing.assert_close(other[..., kept], one)
    spelt = Tokenizer(tmp_path / "bpe.model", tmp_path / "tokens.txt")
    assert spelt.tokens(spelt.encode_target("<rus><pr><notimestamps> /tʲ//p/")) == [
        *("<rus>", "<pr>", "<notimestamps>", "▁", "/tʲ/", "/p/")
    ]


def test_model_without_a_decoder_is_extended_with_its_embedding(corpus, tmp_path):
    exp = make_experiment(tmp_path, corpus / "tokens", base=CTC_SETTINGS)
    start_from(str(exp), corpus / "new/train", tmp_path / "init", extend_vocab=True)
    scores = []
    for tokens, weights in (
        (corpus / "tokens", exp / "valid.loss.ave.pth"),
        (tmp_path / "init", tmp_path / "init/init.pth"),
    ):
        args = make_args(tokens, tmp_path, CTC_SETTINGS)
        model = task_of_model(args.model).build_model(args).eval()
        load_initial(model, str(weights))
        prefix = torch.tensor([[model.eos, 2]])  # <eos> has another number
        prompt = torch.tensor([[model.na]]), torch.tensor([1])
        with torch.no_grad():
            heads, _ = model.heads(
                torch.linspace(-1, 1, 9000)[None], torch.tensor([9000]), *prompt, prefix
            )
        scores.append(heads[2] - heads[2][..., :1])
    old = read_token_list(corpus / "tokens/tokens.txt")
    kept = [model.token_list.index(token) for token in old]
    torch.testing.assert_close(scores[1][..., kept], scores[0])


def test_training_begins_with_these_weights(corpus, tmp_path):
    """With a learning rate of zero the model stays as it began."""
    init, exp = tmp_path / "init", tmp_path / "exp"
    start_from(str(corpus / "exp"), corpus / "new/train", init, extend_vocab=True)
    exp.mkdir()
    args = make_args(
        init,
        exp,
        init_param=[str(init / "init.pth")],
        optim_conf={"lr": 0.0, "weight_decay": 0.0},
        num_iters_per_epoch=1,
        max_epoch=1,
    )
    folders = {"train_folder": corpus / "new/train", "valid_folder": corpus / "new/dev"}
    average = train(args, **folders, exp=exp)
    before = torch.load(init / "init.pth", weights_only=True)
    after = torch.load(average, weights_only=True)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


def test_weights_of_another_vocabulary_do_not_load(corpus, tmp_path):
    """As many tokens, two of them in another order."""
    start_from(str(corpus / "exp"), corpus / "old/train", tmp_path, extend_vocab=False)
    tokens = read_token_list(tmp_path / "tokens.txt")
    tokens[3], tokens[4] = tokens[4], tokens[3]
    (tmp_path / "tokens.txt").write_text("\n".join(tokens) + "\n")
    model = build(corpus / "tokens", tmp_path / "a")
    with pytest.raises(CheckpointError, match="differ first at token 3"):
        load_initial(model, str(tmp_path / "init.pth"))


def test_a_published_model_is_taken_under_its_old_names(corpus, tmp_path):
    published = make_published(tmp_path / "published", corpus / "tokens")
    init = tmp_path / "init"
    start_from(str(published), corpus / "old/train", init, extend_vocab=False)
    mean = {"stats_file": str(init / "feats_stats.npz")}
    model = build(init, tmp_path / "a", normalize="global_mvn", normalize_conf=mean)
    before = model.encoder.embed.out.weight.clone()
    load_initial(model, str(init / "init.pth"))
    assert not torch.equal(model.encoder.embed.out.weight, before)
