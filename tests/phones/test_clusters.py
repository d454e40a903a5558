"""Clusters of the strict policy: a letter with its marks, whatever their order."""

import itertools
import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powsm.phones.inventory import FEATURE_NAMES, FEATURES, INVENTORY, KINDS
from powsm.phones.normaliser import Normaliser

STRICT = Normaliser()
TIE = "\u0361"
JOINER = "\u200d"
INVISIBLE = [
    "\u200b", "\u200c", JOINER, "\u2060", "\ufeff", "\u00ad", "\u034f", "\u200e",
    "\u200f", "\u202a", "\u202c", "\u2066", "\u2069", "\u061c", "\ufe0e", "\ufe0f",
]  # fmt: skip
TONES = ["\u0301", "\u0300", "\u0302", "\u030c", "\u0304", "\u1dc4", "˥", "₅", "5"]


def nfd(text):
    return unicodedata.normalize("NFD", text)


def phones(text):
    return STRICT.segment(text).phones


def kinds(text):
    return dict(Counter(drop.kind for drop in STRICT.segment(text).dropped))


# --- a mark never vanishes because of what stands beside it ---------------------------


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize(
    "plain", ["aː", "nːa", "a\u0303", "ɛ\u0308ː", "nʲa", "l\u0329ː"]
)
def test_tone_between_letter_and_mark(plain, tone):
    toned = f"{plain[0]}{tone}{plain[1:]}"
    assert phones(toned) == phones(plain)
    assert STRICT.segment(toned).unknown_count == 0


@pytest.mark.parametrize(
    ("text", "phone", "lost"),
    [
        ("aː\u0303", "a\u0303ː", ""),
        ("tːʰ", "tʰː", ""),
        (f"t{TIE}ʃːʰ", f"t{TIE}ʃʰː", ""),
        (f"tʰ{TIE}ʃ", f"t{TIE}ʃʰ", ""),  # on the first letter
        ("kʰʷ", "kʷʰ", ""),  # PanPhon has both orders: one is taken
        ("ɡʷʱ", "ɡ\u0324ʷ", ""),
        ("t\u031aʰ", "tʰ", "\u031a"),  # a mark that PanPhon lacks, before one it has
        ("a\u0323ː", "aː", "\u0323"),
        ("aᵄː", "aː", "ᵄ"),  # one that no table has
        ("aːː", "aː", "ː"),  # extra long
        ("e\u031eːˑ", None, "ˑ"),
        ("c\u030c\u0327ː", "c\u0327ː", "\u030c"),  # ç is a letter
        ("s\u0329\u030c", "s\u0329", "\u030c"),  # the tone of a syllable, not š
        ("s\u0323\u030c", "ʃ", "\u0323"),
        ("ɚ\u0303", None, ""),
    ],
)
def test_marks_in_any_order(text, phone, lost):
    segmentation = STRICT.segment(text)
    assert len(segmentation.phones) == 1
    if phone is not None:
        assert segmentation.phones == (nfd(phone),)
        assert "".join(drop.char for drop in segmentation.dropped) == lost


@pytest.mark.parametrize(
    ("text", "phone", "lost"),
    [
        # quality before length where the inventory has no phone with both
        ("l\u0334ː", "l\u0334", "ː"),
        ("ə\u02deː", "ə\u02de", "ː"),
        ("əː\u02de", "ə\u02de", "ː"),
        ("eːˀ", "eˀ", "ː"),
        # but length before what has no features in PanPhon
        ("e\u031eː", "eː", "\u031e"),
        ("a\u0308ː", "aː", "\u0308"),
        ("ɯ\u031fː", "ɯː", "\u031f"),
        # the mark that changes more
        ("k\u031fʰ", "kʰ", "\u031f"),
        ("d\u0320ˤ", "dˤ", "\u0320"),
        ("v\u0329\u0320", "v\u0329", "\u0320"),
        ("r\u031d\u0325", "r\u0325", "\u031d"),
        ("ə\u02de\u032f", "ə\u02de", "\u032f"),
    ],
)
def test_quality_goes_before_length(text, phone, lost):
    assert phones(text) == (phone,)
    assert [drop.char for drop in STRICT.segment(text).dropped] == [lost]
    assert kinds(text) == {"diacritic": 1}


CLUSTER_LETTERS = "pbtdkɡmnŋszʃlɹjwaeiouəɛ"
CLUSTER_MARKS = "ʰʷʲˠˤːʼ\u0303\u0330\u0324\u0325\u032a\u0329\u02de\u031a"
CLUSTERS = st.tuples(
    st.sampled_from([*CLUSTER_LETTERS, f"t{TIE}s", f"d{TIE}ʒ", f"k{TIE}p"]),
    st.lists(st.sampled_from(CLUSTER_MARKS), max_size=4, unique=True),
)


@settings(deadline=None)
@given(CLUSTERS)
def test_the_phone_keeps_as_much_as_any_of_the_inventory(cluster):
    """Every phone of the inventory is tried: none holds more of what was written."""
    base, marks = cluster
    if base in "mnŋlɹjw":
        marks = [mark for mark in marks if mark != "ʼ"]  # an alias there
    text = base + "".join(marks)
    written = Counter(text)
    most = max(
        len(phone)
        for phone in INVENTORY
        if phone.replace("ˀ", "")[:1] == base[0]
        and Counter(phone) <= written
        and Counter(base) <= Counter(phone)
    )
    (phone,) = phones(text)
    assert Counter(phone) <= written and len(phone) == most
    assert kinds(text).get("diacritic", 0) == len(text) - most


@settings(deadline=None)
@given(st.lists(CLUSTERS, min_size=1, max_size=4), st.randoms())
def test_order_of_marks_and_normal_form_never_matter(clusters, rng):
    text = "".join(base + "".join(marks) for base, marks in clusters)
    shuffled = "".join(
        base + "".join(rng.sample(marks, len(marks))) for base, marks in clusters
    )
    assert phones(shuffled) == phones(text)
    assert phones(unicodedata.normalize("NFC", shuffled)) == phones(text)
    assert kinds(shuffled) == kinds(text)


@pytest.mark.parametrize("marks", ["ːʰʷ", "ː\u0303\u0330", "ʲʼː", "\u032aʰː\u031a"])
def test_every_order_of_marks_is_one_phone(marks):
    for letter in "tka":
        orders = {phones(letter + "".join(o)) for o in itertools.permutations(marks)}
        assert len(orders) == 1


@settings(deadline=None)
@given(CLUSTERS)
def test_no_phone_that_keeps_as_many_marks_is_nearer(cluster):
    """In features but length, from the bare letter: what is dropped weighs least."""
    base, marks = cluster
    if base in "mnŋlɹjw":
        marks = [mark for mark in marks if mark != "ʼ"]
    written = Counter(base + "".join(marks))
    (phone,) = phones(base + "".join(marks))

    def changes(other):
        pairs = zip(FEATURE_NAMES, FEATURES[other], FEATURES[base], strict=True)
        return sum(name != "long" and x != y for name, x, y in pairs)

    for other in INVENTORY:
        same_letters = Counter(other) & Counter(base) == Counter(base)
        if len(other) == len(phone) and same_letters and Counter(other) <= written:
            assert changes(other) <= changes(phone)


WORDS = st.lists(
    st.one_of(
        st.sampled_from([p for p in INVENTORY if p[0] not in KINDS or p[0] == "ˀ"]),
        st.sampled_from(["ˈ", ".", "t͡ʂ", "š", "ɚ", "g", "Q", "!", "'", "k'", "ʧʰ"]),
        st.sampled_from(CLUSTER_MARKS),
    ),
    min_size=1,
    max_size=6,
).map("".join)


@pytest.mark.parametrize("text", ["lˌʲ", "qˈʷ", "aˈː", "a˦ˀ˥", "taˈ!a"])
def test_invisible_beside_stress_and_tone(text):
    text = nfd(text)
    for place in range(len(text) + 1):
        shown = text[:place] + "\u200b" + text[place:]
        assert phones(shown) == phones(text), ascii(shown)


@settings(deadline=None)
@given(WORDS, st.data())
def test_an_ignorable_character_never_changes_the_phones(text, data):
    """Except the joiner between two letters, where espeak writes it for a tie."""
    text = nfd(text)
    place = data.draw(st.integers(0, len(text)))
    sign = data.draw(st.sampled_from([c for c in INVISIBLE if c != JOINER]))
    assert phones(text[:place] + sign + text[place:]) == phones(text)


@pytest.mark.parametrize("sign", INVISIBLE)
@pytest.mark.parametrize(
    "text", [f"t{TIE}ʃa", "aː", "pʰa", "a\u0303", "!a", "ˀta", "š"]
)
def test_invisible_inside_a_phone(text, sign):
    text = nfd(text)
    for place in range(1, len(text) + 1):
        assert phones(text[:place] + sign + text[place:]) == phones(text)


# --- ties -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"t{TIE}ʃ",
        "t\u035cʃ",
        f"t{TIE}{TIE}ʃ",
        f"t\u035c{TIE}ʃ",
        f"tʃ{TIE}",  # behind the second letter
        "t\ufe20ʃ\ufe21",  # half marks
        "t\ufe27ʃ\ufe28",
        f"t{JOINER}ʃ",  # espeak
        f"t{JOINER}{TIE}ʃ",
        "ʧ",
        "č",
    ],
)
def test_one_tie(text):
    assert phones(f"a{text}a") == ("a", f"t{TIE}ʃ", "a")
    assert "diacritic" not in kinds(f"a{text}a")


@pytest.mark.parametrize(
    ("text", "expected", "lost"),
    [
        (f"t{TIE}ʂ", f"ʈ{TIE}ʂ", ""),
        (f"d{TIE}ʐ", f"ɖ{TIE}ʐ", ""),
        (f"t{TIE}ʂʰ", f"ʈ{TIE}ʂʰ", ""),
        (f"t{TIE}{TIE}ʂʼ", f"ʈ{TIE}ʂʼ", "\u0361"),
        (f"t\u032a{TIE}s", f"t{TIE}s", "\u032a"),
        (f"t\u0348{TIE}ɕ", f"t{TIE}ɕ", "\u0348"),  # Korean
        (f"t\u032a{TIE}s\u032a", f"t\u032a{TIE}s\u032a", ""),
        (f"t{TIE}θ", f"t\u032a{TIE}θ", ""),  # dental in every phone of PanPhon
        (f"a{TIE}ɪ", "a ɪ", "\u0361"),  # no phone has both
        (f"c{TIE}c", "c c", "\u0361"),
        (f"pts{TIE}a", f"p t{TIE}s a", ""),  # neither p͡t nor s͡a
        (f"k{TIE}w", "k w", "\u0361"),
        (f"{TIE}ta{TIE}", "t a", "\u0361\u0361"),
        (f"a{JOINER}ɪ", "a ɪ", JOINER),
    ],
)
def test_what_ties_join(text, expected, lost):
    segmentation = STRICT.segment(text)
    assert segmentation.phones == tuple(expected.split())
    assert "".join(drop.char for drop in segmentation.dropped) == lost


# --- the glottal mark, clicks, brackets, symbols of other alphabets -------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a superscript after a plosive is its release, as IPA writes affricates
        ("atˢa", "a t͡s a"),
        ("t\u032aˢu", "t͡s u"),
        ("tˢʰɔ", "t͡sʰ ɔ"),
        ("dᶻa", "d͡z a"),
        ("pᶠa", "p͡f a"),
        ("kˣʷa", "k͡xʷ a"),
        ("kaˢ", "k a"),
        # a macron: long or strong obstruents, toned vowels and sonorants
        ("χ\u0304a", "χː a"),
        ("s\u0304im", "sː i m"),
        ("t͡s\u0304a", "t͡sː a"),
        ("n\u0304a\u0304", "n a"),
        ("m\u0329\u0304", "m\u0329"),
    ],
)
def test_releases_and_macrons(text, expected):
    assert phones(text) == tuple(nfd(expected).split())
    assert STRICT.segment(text).unknown_count == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deːˀn", "d eˀ n"),
        ("manˀd", "m a nˀ d"),
        ("a\u0301ˀl", "aˀ l"),
        ("ma˥ˀna", "m aˀ n a"),
        ("maːn˦ˀ˥", "m aː n"),  # Vietnamese: within the tone
        ("ŋɨə˧ˀ˨j˧", "ŋ ɨ ə j"),
        ("kolˌʲ", "k o lʲ"),  # stress inside of a phone
        ("aˈːta", "aː t a"),
        ("aˈ\u0303ta", "a\u0303 t a"),
        ("atˈⁿda", "a t d a"),  # but before its own sound
        ("ˀna", "ˀn a"),
        ("paˈˀna", "p a ˀn a"),
        ("pa.ˀta", "p a ˀt a"),
        ("ˀt͡sa", "ˀt͡s a"),
        ("(ˀta)", "ˀt a"),
        ("n'a", "nˀ a"),  # an ejective sonorant: the UCLA archive's glottalised one
        ("k'a", "kʼ a"),
    ],
)
def test_a_glottal_mark_belongs_to_what_is_before_it(text, expected):
    assert phones(text) == tuple(nfd(expected).split())


@pytest.mark.parametrize(
    ("text", "n_clicks"),
    [
        ("!a", 1),
        ("a!a", 1),
        ("ka!ʷa ka!", 0),  # a click with a mark is another phone: ǃʷ
        (f"ŋ{TIE}!", 1),
        ("ǃ", 1),  # the click itself is never punctuation
        ("həˈloʊ!", 0),
        ("həˈloʊ !", 0),
        ("jɛs!!", 0),
        ("(jɛs!)", 0),
        ("ola!, si", 0),
        ("¡ola!", 0),
        ("ja!…", 0),
    ],
)
def test_exclamation_mark(text, n_clicks):
    segmentation = STRICT.segment(text)
    assert segmentation.phones.count("ǃ") == n_clicks
    assert segmentation.unknown_count == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(en)wɜːld(fr)", "w ɜː l d"),
        ("(en)wɜːld ˈpa(fr), na", "w ɜː l d p a n a"),
        ("(fr)pa(en)", "p a"),
        ("(en-us)pa", "p a"),
        ("na(cmn)pa", "n a p a"),
        ("ka(ta)", "k a t a"),
        ("(ta)", "t a"),
        ("ma(na)na", "m a n a n a"),
        ("(ti)ta pa(so)", "t i t a p a s o"),
        ("ɡeːb(en)", "ɡ eː b e n"),
        ("(en)ka", "e n k a"),  # no second flag
        ("(en) pa (fr)", "e n p a f r"),  # espeak writes them on the word
    ],
)
def test_language_flags_and_optional_syllables(text, expected):
    segmentation = STRICT.segment(text)
    assert segmentation.phones == tuple(expected.split())
    drops = {d.char for d in segmentation.dropped}
    assert drops <= set(text)


@pytest.mark.parametrize(
    ("text", "n_unknown"),
    [
        ("k{t", 1), ("k@t", 1), ("@b{k", 2), ("soʊf@", 1), ("s}t", 1), ("ˈ?ts", 1),
        ("v??d", 2), ("?a", 1), ("pa/ta", 1), ("v\\a", 1), ("t_ha", 1), ("k & t", 0),
        ("h @ l", 1), ("k&t", 1), ("{kt", 1),
        # punctuation
        ("kæt?", 0), ("(kæt?)", 0), ("¿kæt?", 0), ("{kæt}", 0), ("/kæt/", 0), ("?", 0),
        ("[kæt]", 0), ("kæt, dɔɡ.", 0), ("kæt…", 0), ("*pa", 0), ("kæt?!", 0),
    ],
)  # fmt: skip
def test_symbols_of_other_alphabets_are_unknown(text, n_unknown):
    assert STRICT.segment(text).unknown_count == n_unknown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ӕlӕ", "æ l æ"), ("λa", "ʎ a"), ("υa", "ʋ a"), ("aɂ", "a ʔ"), ("aɁ", "a ʔ"),
        ("kʻa", "kʼ a"), ("ꭓa", "χ a"), ("ꞵa", "β a"), ("a꞉", "aː"), ("a∶", "aː"),
        ("α", "ɑ"), ("∫a", "ʃ a"), ("ȝa", "ʒ a"), ("ma₅", "m a"), ("ma₀₁", "m a"),
        ("ma꜒꜖", "m a"), ("ma꜀", "m a"),
    ],
)  # fmt: skip
def test_look_alikes(text, expected):
    segmentation = STRICT.segment(text)
    assert segmentation.phones == tuple(expected.split())
    assert segmentation.unknown_count == 0


@pytest.mark.parametrize("sign", INVISIBLE)
def test_signs_without_a_shape_are_invisible(sign):
    assert kinds(f"ta{sign}") == {"invisible": 1}


# --- any input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    ["<", "a<", "<a", "(en)", "(", "!", "@", "a@", "{", "a}", "ˀ", TIE, f"t{TIE}",
     "\u0303", "a\u0303\u0323", "š", JOINER, f"!{JOINER}", "ː", "(en", "Q", "'"],
)  # fmt: skip
def test_time_grows_with_the_length(unit):
    """A square would take 16 times as long for four times as much."""

    def seconds(n):
        best = []
        for _ in range(3):
            start = time.process_time()
            tuple(Normaliser().segment(unit * n).losses())
            best.append(time.process_time() - start)
        return min(best)

    seconds(10)
    assert seconds(32_000) < 12 * max(seconds(8_000), 0.005)
