"""Loops over the lines of a dump folder's files, compiled: what `prepare.index` is of.

A line is `<id> <value>`; an id ends in `_<lang>_<task>`. Files are their bytes.
"""

import numpy as np

from powsm.files.compiled import jit

_SPACE, NEWLINE, _UNDERSCORE, _ZERO, _SLASH, _COLON = 32, 10, 95, 48, 47, 58
_OFFSET, _PRIME = 0xCBF29CE484222325, 0x100000001B3  # of the hash FNV-1a, 64 bits


@jit
def _next_line(data, at):
    while data[at] != NEWLINE:
        at += 1
    return at + 1


@jit
def _next_word(data, at):
    while data[at] != _SPACE and data[at] != NEWLINE:
        at += 1
    return at + 1 if data[at] == _SPACE else at


@jit
def _number(data, at):
    """The number behind the id at `at`, or -1 where there is none."""
    at = _next_word(data, at)
    value = -1
    while data[at] != NEWLINE:
        digit = data[at] - _ZERO
        if digit < 0 or digit > 9:
            return -1
        value = max(value, 0) * 10 + digit
        at += 1
    return value


@jit
def follow(files, at, begins, samples):
    """Walk through all files side by side, utterance by utterance.

    Lines whose ids agree up to the last underscore are one utterance.

    Args:
        files: bytes of each of `_FILES`.
        at: where the next line begins in each; moved on.
        begins: (most, files) filled with where each utterance begins.
        samples: (most,) filled with its number of samples, -1 where there is none.

    Returns:
        How many utterances were found, or -1 where files name different examples.
    """
    ids = files[0]
    n = 0
    while n < samples.size and at[0] < ids.size:
        begins[n] = at
        first, stem = at[0], -1
        while at[0] < ids.size:
            start = at[0]
            end = cut = start
            while ids[end] != _SPACE and ids[end] != NEWLINE:
                if ids[end] == _UNDERSCORE:
                    cut = end
                end += 1
            if stem < 0:
                stem = cut - start
            else:
                same = cut - start == stem
                for k in range(stem if same else 0):
                    if ids[first + k] != ids[start + k]:
                        same = False
                        break
                if not same:
                    break
            for f in range(1, len(files)):
                other, i = files[f], at[f]
                if i + end - start >= other.size:
                    return -1
                for k in range(end - start):
                    if other[i + k] != ids[start + k]:
                        return -1
                i += end - start
                if other[i] != _SPACE and other[i] != NEWLINE:
                    return -1
            if start == first:
                samples[n] = _number(files[-1], at[-1])
            for f in range(len(files)):
                at[f] = _next_line(files[f], at[f])
        n += 1
    return n


@jit
def langs_of(ids, begins) -> np.ndarray:
    """The three letters before the last underscore of the id at each of `begins`."""
    codes = np.empty(begins.size, np.int32)
    for k in range(begins.size):
        i = begins[k]
        cut = i
        while ids[i] != _SPACE and ids[i] != NEWLINE:
            if ids[i] == _UNDERSCORE:
                cut = i
            i += 1
        codes[k] = 0
        for letter in ids[max(0, cut - 3) : cut]:
            codes[k] = codes[k] * 256 + letter
    return codes


@jit
def places_of(ids, begins) -> np.ndarray:
    """A number for what holds the audio named in the line at each of `begins`.

    That is an archive, as in `a/b.tar:512:48210`, or the folder of a plain file.
    """
    found = np.empty(begins.size, np.uint64)
    for k in range(begins.size):
        i = _next_word(ids, begins[k])
        end = slash = i
        colon = -1
        while ids[end] != NEWLINE:
            if ids[end] == _SLASH:
                slash, colon = end, -1
            elif ids[end] == _COLON and colon < 0:
                colon = end
            end += 1
        number = np.uint64(_OFFSET)
        for letter in ids[i : slash if colon < 0 else colon]:
            number = (number ^ np.uint64(letter)) * np.uint64(_PRIME)
        found[k] = number
    return found


@jit
def has_suffix(ids, begins, suffixes) -> np.ndarray:
    """Whether a line between two of `begins` has an id with one of the suffixes."""
    has = np.zeros(begins.size - 1, np.bool_)
    for k in range(has.size):
        i = begins[k]
        while i < begins[k + 1]:
            start = i
            while ids[i] != _SPACE and ids[i] != NEWLINE:
                i += 1
            for suffix in suffixes:
                if i - start >= suffix.size:
                    same = True
                    for n in range(suffix.size):
                        same &= ids[i - suffix.size + n] == suffix[n]
                    has[k] |= same
            i = _next_line(ids, i)
    return has
