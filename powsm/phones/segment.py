"""One word of IPA text into phones, by the rules of the strict policy.

`strict_word` loses nothing without saying so: its `Word` has phones that are in the
inventory, and drops that name every other character. `powsm.phones.normaliser` puts
words together into texts; `released` has the public recipe's way.
"""

import re
import unicodedata
from functools import lru_cache

from powsm.languages import lang_code
from powsm.phones.clusters import (
    BY_BASE,
    FORMS,
    GLOTTAL,
    LENGTH,
    LETTERS,
    MARKS,
    TIE,
    Word,
    choose,
    cluster_of,
)
from powsm.phones.inventory import ALIASES, KINDS, UNKNOWN, kind_of

_JOINER = "\u200d"  # espeak's tie, where it joins what a tie could join
_EJECTIVE = "ʼ"
_SYLLABIC = "\u0329"
_CARON = "\u030c"
# On these letters the ejective mark is written for glottalisation, as the UCLA archive
# does: an ejective sonorant cannot be said.
_SONORANTS = frozenset("mɱnɳɲŋɴlɭʎʟɹɻjɥɰwʋrɾɽʀ")
# What cannot be sung: a macron on these letters says that they are long or strong.
_OBSTRUENTS = frozenset("pbtdʈɖcɟkɡqɢʔɸβfvθðszʃʒʂʐɕʑçʝxɣχʁħʕhɦɬɮɓɗʄɠʛ")
# around ˀ, as in Vietnamese ˦ˀ˥: the voice breaks within the tone
_TONE_LETTERS = frozenset("˥˦˧˨˩")
_MACRON = "\u0304"
# marks that never come before their sound, as ʰ and ⁿ may
_STRESSED_MARK = re.compile("[\u0300-\u036fːʲʷˠˤ]")
# in a word these are sounds of another alphabet, such as X-SAMPA's
_FOREIGN = frozenset("@&\\{}?/_*%")
# (en) of espeak
_FLAG = re.compile(r"\(((?:[a-z]{2}|cmn|yue)(?:-[a-z0-9]{1,8}){0,3})\)")
# <p:> and <<fp>> of corpora, <unk> of other recognisers; each run of < is read once
_MARKUP = re.compile(r"(?<!<)<++[^<>\s]++>+")


class _Letter:
    """A letter with what is written on it; positions are those in the word.

    Attributes:
        base: the letter, a pair where an alias is one.
        start: its position.
        marks: each mark and its position; `ˀx` before the letter.
        ties: positions of the ties behind it.
        joiner: position of a zero width joiner right before the next letter.
        forms: marks that make another letter of it, and their positions.
    """

    __slots__ = ("base", "forms", "joiner", "marks", "start", "ties")

    def __init__(self, base: str, start: int) -> None:
        self.base, self.start = base, start
        self.marks: list[tuple[str, int]] = []
        self.ties: list[int] = []
        self.joiner: int | None = None
        self.forms: list[tuple[str, int]] = []


class _Reader:
    """Reads one word, letter by letter, into phones and an account of the rest."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.phones: list[str] = []
        self.dropped: dict[int, str] = {}  # position -> kind
        self.sources: dict[int, str] = {}  # position -> source of an alias
        self._run: list[_Letter] = []  # letters with no boundary between them
        self._before: int | None = None  # position of a ˀ that awaits its letter
        self._edges: tuple[int, int] | None = None  # first and last sound

    def read(self, start: int, end: int) -> None:
        for i in range(start, end):
            char = self.word[i]
            if char == "!" and not _is_click(self.word, i):
                self._boundary(i, "punctuation")
                continue
            target = ALIASES.get(char)
            if target is None:
                self._take(char, i)
                continue
            self.sources[i] = char
            for part in target:
                self._take(part, i)
        self._end_run()

    def _take(self, char: str, i: int) -> None:
        """One character, aliases resolved."""
        letter = self._run[-1] if self._run else None
        if char in LETTERS:
            self._run.append(_Letter(char, i))
            if self._before is not None:
                self._run[-1].marks.append((f"{GLOTTAL}x", self._before))
                self._before = None
            return
        if letter is not None:
            letter.joiner = None
            if letter.base + char in FORMS:
                letter.forms.append((char, i))
                return
            if char == _MACRON and letter.base in _OBSTRUENTS:
                self.sources[i] = char
                letter.marks.append((LENGTH, i))
                return
        kind = kind_of(char)
        if char == TIE and letter is not None:
            letter.ties.append(i)
        elif kind in ("tone", "invisible"):
            self._drop(i, kind)
            if char == _JOINER and letter is not None:
                letter.joiner = i
        elif char == GLOTTAL and _TONE_LETTERS.issuperset(
            (_seen(self.word, i, -1), _seen(self.word, i, 1))
        ):
            self._drop(i, "tone")
        elif kind == "stress" and _STRESSED_MARK.match(_seen(self.word, i, 1)):
            self._drop(i, kind)  # Romanian -lˌʲ of espeak: the mark is the letter's
        elif not _is_mark(char):
            self._boundary(i, self._kind_in_word(i, kind))
        elif letter is not None:
            letter.marks.append((char, i))
        elif char == GLOTTAL and self._before is None:
            self._before = i
        else:
            self._drop(i, kind)

    def _kind_in_word(self, i: int, kind: str) -> str:
        """Kind of a character between letters: what X-SAMPA uses is no punctuation."""
        char = self.word[i]
        if char not in _FOREIGN:
            return kind
        if self._edges is None:
            sounds = [k for k, c in enumerate(self.word) if _is_sound(c)]
            self._edges = (sounds[0], sounds[-1]) if sounds else (-1, -1)
        first, last = self._edges
        if first < 0:
            return UNKNOWN if char in "@{}" else kind
        outside = i < first or i > last
        if char in "/_*%":
            is_foreign = not outside
        elif char == "?":
            is_foreign = i <= last
        elif char in "{}":  # a pair of them may enclose a word
            closing = self.word.find("}", last)
            opening = self.word.find("{", 0, first)
            is_foreign = not (outside and opening >= 0 and closing >= 0)
        else:
            is_foreign = True
        return UNKNOWN if is_foreign else kind

    def _drop(self, i: int, kind: str) -> None:
        self.dropped[i] = kind
        self.sources.pop(i, None)

    def _boundary(self, i: int, kind: str) -> None:
        self._end_run()
        self._drop(i, kind)

    def _end_run(self) -> None:
        """Phones of the letters since the last boundary."""
        run, self._run = self._run, []
        if self._before is not None:
            self._drop(self._before, "diacritic")
            self._before = None
        for letter in run:
            if letter.forms:
                self._form(letter)
        i = 0
        while i < len(run):
            tied = _tied(run, i)
            letters = run[i : i + 1 + (tied is not None)]
            base = letters[0].base if tied is None else ALIASES.get(tied, tied)
            if base != (tied or base):
                self.sources[letters[0].start] = tied
            self._cluster(base, letters)
            i += len(letters)

    def _form(self, letter: _Letter) -> None:
        """Make ʃ of s and its caron, unless the caron is the tone of a syllable."""
        syllabic = any(mark == _SYLLABIC for mark, _ in letter.marks)
        letter.forms.sort(key=lambda form: unicodedata.combining(form[0]))
        for n, (char, i) in enumerate(letter.forms):
            if n > 0 or (char == _CARON and syllabic):
                self._drop(i, kind_of(char))
                continue
            source = letter.base + char
            letter.base = FORMS[source]
            if letter.base != source:
                self.sources[letter.start] = source

    def _cluster(self, base: str, letters: list[_Letter]) -> None:
        """Append the phone of one or two letters, and account for what it leaves."""
        ties = [i for letter in letters for i in letter.ties]
        if len(letters) == 2:
            joiner = letters[0].joiner
            if not ties and joiner is not None:
                del self.dropped[joiner]
                self.sources[joiner] = _JOINER
            for i in ties[1:]:
                self._drop(i, "invisible")  # says nothing that the first does not
        else:
            for i in ties:
                self._drop(i, "diacritic")
        _, known, implied = cluster_of(base)
        numbered: dict[str, int] = {}
        for mark, i in (pair for letter in letters for pair in letter.marks):
            if mark == _EJECTIVE and base in _SONORANTS and mark not in known:
                self.sources.setdefault(i, _EJECTIVE)
                mark = GLOTTAL
            if mark in numbered:
                mark *= 2
            if mark in numbered:
                self._drop(i, kind_of(mark[0]))
            else:
                numbered[mark] = i
        marks = known.intersection(numbered) | implied
        phone, kept = choose(base, marks)
        self.phones.append(phone)
        for mark in numbered.keys() - kept:
            self._drop(numbered[mark], kind_of(mark[0]))


def strict_word(word: str) -> Word:
    """Segment one NFD word: aliases, then the nearest phone of each cluster."""
    reader = _Reader(word)
    end = 0
    for mark in _MARKUP.finditer(word):
        reader.read(end, mark.start())
        end = mark.end()
        reader.dropped.update(dict.fromkeys(range(mark.start(), end), "markup"))
    reader.read(end, len(word))
    dropped = tuple((word[i], i, kind) for i, kind in sorted(reader.dropped.items()))
    aliases = tuple(source for _, source in sorted(reader.sources.items()))
    return Word(tuple(reader.phones), dropped, aliases)


def mark_flags(text: str) -> str:
    """Write espeak's switches of language as markup; the length stays.

    They come in pairs round foreign words, one of the two English: (en)...(fr). Other
    brackets hold optional syllables, unless no syllable is in them: (en-us), (cmn).

    >>> mark_flags("(en)wɜːld(fr) ka(ta)"), mark_flags("(en-us)pa")
    ('<en>wɜːld<fr> ka(ta)', '<en-us>pa')
    """
    flags = [m for m in _FLAG.finditer(text) if lang_code(m[1]) is not None]
    chars = list(text)
    opening = None
    for flag in flags:
        start, end = flag.span()
        at_start = start == 0 or text[start - 1].isspace()
        if opening is not None and not at_start and "en" in (opening[1], flag[1]):
            places = [*opening.span(), start, end]
            opening = None
        elif "-" in flag[1] or flag[1] == "cmn":
            places, opening = [start, end], None
        else:
            followed = end < len(text) and not text[end].isspace()
            opening, places = flag if followed else None, []
        for place, bracket in zip(places, "<><>", strict=False):
            chars[place - (bracket == ">")] = bracket
    return "".join(chars)


def _tied(run: list[_Letter], i: int) -> str | None:
    """The pair that letter i and the next make under a tie, if they do.

    The tie may follow the second letter, if it joins nothing there.
    """
    tied = _pair(run, i)
    if tied is None or run[i].ties or run[i].joiner is not None:
        return tied
    return tied if run[i + 1].ties and _pair(run, i + 1) is None else None


def _pair(run: list[_Letter], i: int) -> str | None:
    if i + 1 >= len(run):
        return None
    tied = f"{run[i].base}{TIE}{run[i + 1].base}"
    return tied if ALIASES.get(tied, tied) in BY_BASE else None


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    """Whether a character belongs to the letter before it, known or not."""
    if char in KINDS:
        return KINDS[char] == "diacritic"
    return char in MARKS or unicodedata.category(char) in ("Mn", "Mc", "Me", "Lm")


def _seen(word: str, i: int, step: int) -> str:
    """The next character that is not invisible, to the right (1) or the left (-1)."""
    i += step
    while 0 <= i < len(word) and kind_of(word[i]) == "invisible":
        i += step
    return word[i] if 0 <= i < len(word) else ""


def _is_click(word: str, i: int) -> bool:
    """Whether an exclamation mark begins a syllable or is tied; none ends a word."""
    before, after = _seen(word, i, -1), i + 1
    if ALIASES.get(before, before) == TIE:
        return True
    while after < len(word) and kind_of(word[after]) in ("tone", "invisible"):
        after += 1
    char = word[after : after + 1]
    if not char or char == "!":
        return False
    char = ALIASES.get(char, char)[0]
    return char in LETTERS or char == TIE or _is_mark(char)


def _is_sound(char: str) -> bool:
    return char not in KINDS and unicodedata.category(char).startswith("L")
