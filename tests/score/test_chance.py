"""What is scored beside every PFER: the same hypotheses against other references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powsm.score.chance import other_references
from powsm.score.metrics import score_phones


def test_chance_by_hand():
    # [p] against the reference [b] and the other way round: voicing, 1 of 24 features
    scores = score_phones(hyp=["p", "b"], ref=["p", "b"])
    assert scores.value("PFER") == 0.0
    assert scores.value("PFER_chance") == pytest.approx(100 / 24)
    assert scores.counts["n_chance"] == 2


def test_a_system_that_does_not_listen_scores_chance():
    rng = np.random.default_rng(0)
    words = [
        "".join(rng.choice([*"ptkaiusmn"], size=n)) for n in rng.integers(2, 12, 400)
    ]
    ref = words[:200]
    # of the lengths of the references, but of other utterances
    hyp = sorted(words[200:], key=len)
    order = sorted(range(200), key=lambda i: len(ref[i]))
    hyp = {str(i): h for i, h in zip(order, hyp, strict=True)}
    scores = score_phones(hyp=hyp, ref={str(i): r for i, r in enumerate(ref)})
    assert scores.value("PFER") == pytest.approx(scores.value("PFER_chance"), rel=0.1)


def test_partner_is_of_the_same_language_where_that_has_two_references():
    ref = [("p",), ("t", "a"), ("k",), ("s", "a"), ("m",)]
    partners = other_references(ref, ["eng", "eng", "deu", "deu", "spa"])
    assert partners[:4] == [1, 0, 3, 2]
    assert partners[4] in (0, 2)  # no other Spanish one: of one phone, as it has


@pytest.mark.parametrize("ref", [[], [("p",)], [("p",)] * 3])
def test_without_another_reference_there_is_no_chance(ref):
    assert other_references(ref) == [-1] * len(ref)
    if ref:
        scores = score_phones(hyp=["p"] * len(ref), ref=["p"] * len(ref))
        assert np.isnan(scores.value("PFER_chance"))
        rows = scores.records(set_name="x", task="pr", decode="ctc")
        assert "PFER_chance" not in {row["metric"] for row in rows}


@given(
    ref=st.lists(st.lists(st.sampled_from("pta"), max_size=3).map(tuple), max_size=12),
    data=st.data(),
)
def test_partners_differ_and_are_as_near_in_length_as_can_be(ref, data):
    langs = data.draw(
        st.lists(st.sampled_from("xy"), min_size=len(ref), max_size=len(ref))
    )
    for i, partner in enumerate(other_references(ref, langs)):
        others = [k for k in range(len(ref)) if ref[k] != ref[i]]
        same = [k for k in others if langs[k] == langs[i]]
        if not others:
            assert partner == -1
            continue
        assert partner in (same or others)
        gap = min(abs(len(ref[k]) - len(ref[i])) for k in same or others)
        assert abs(len(ref[partner]) - len(ref[i])) == gap
