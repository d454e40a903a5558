"""CTC sums over all paths, with one label replaced by each other one, or left out.

What is said before a label and after it is summed once, as prefixes and suffixes; a
label put in its place then costs one pass over the frames: T x L x Q additions for T
frames, L labels and Q candidates, where as many forward sums would take L times more.
"""

import numpy as np

from powsm.files.compiled import jit

_SMALL = 1e-100  # below this the sums of a frame are scaled up


def replaced_log_probs(
    log_probs: np.ndarray, labels: np.ndarray, rivals: np.ndarray
) -> tuple[float, np.ndarray]:
    """How likely labels are, and how likely with one of them another.

    Args:
        log_probs: (T, C) log-probabilities; column 0 is the blank.
        labels: (L,) columns, in order; at least one.
        rivals: (Q,) columns that are put in the place of each label.

    Returns:
        The log-probability of the labels, summed over all paths, and (L, Q + 1) those
        of the labels with label i replaced by rival q; in the last column with label i
        left out. Minus infinity for what does not fit the frames.

    >>> log_probs = np.log([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    >>> given, other = replaced_log_probs(log_probs, np.array([1]), np.array([1, 2]))
    >>> round(float(np.exp(given)), 3)  # 1 1, 1 blank, blank 1
    0.22
    >>> np.exp(other).round(3).tolist()  # none: blank blank
    [[0.22, 0.46, 0.1]]
    """
    log_probs = np.ascontiguousarray(log_probs, np.float64)
    labels = np.ascontiguousarray(labels, np.int64)
    rivals = np.ascontiguousarray(rivals, np.int64)
    before = _prefixes(log_probs, labels)
    after = _suffixes(log_probs, labels)
    probs = np.exp(log_probs[:, rivals])
    found = _replace(probs, rivals, labels, *before, *after)
    blank, label = before
    given = np.logaddexp(blank[-1, -1], label[-1, -1])
    return float(given), found


@jit
def _log_add(a, b):
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + np.log1p(np.exp(b - a))


@jit
def _prefixes(log_probs, labels):
    """Sums over the first t frames.

    Returns:
        (L + 1, T + 1) those that say i labels and end in a blank, of which nothing at
        all is one, and (L, T + 1) those that end in label i.
    """
    n_frames, n = len(log_probs), len(labels)
    blank = np.full((n + 1, n_frames + 1), -np.inf)
    label = np.full((n, n_frames + 1), -np.inf)
    blank[0, 0] = 0.0
    for t in range(n_frames):
        for i in range(n + 1):
            said = label[i - 1, t] if i > 0 else -np.inf
            blank[i, t + 1] = _log_add(blank[i, t], said) + log_probs[t, 0]
            if i == n:
                continue
            into = _log_add(label[i, t], blank[i, t])
            if i > 0 and labels[i] != labels[i - 1]:
                into = _log_add(into, said)
            label[i, t + 1] = into + log_probs[t, labels[i]]
    return blank, label


@jit
def _suffixes(log_probs, labels):
    """Sums over the frames from t on; as `_prefixes`, with the end for the beginning.

    Returns:
        (L + 1, T + 1) those that begin in the blank before label i, of which the end is
        one, and (L, T + 1) those that begin in label i.
    """
    n_frames, n = len(log_probs), len(labels)
    blank = np.full((n + 1, n_frames + 1), -np.inf)
    label = np.full((n, n_frames + 1), -np.inf)
    blank[n, n_frames] = 0.0
    for t in range(n_frames - 1, -1, -1):
        for i in range(n + 1):
            say = label[i, t + 1] if i < n else -np.inf
            blank[i, t] = _log_add(blank[i, t + 1], say) + log_probs[t, 0]
            if i == n:
                continue
            onward = _log_add(label[i, t + 1], blank[i + 1, t + 1])
            if i + 1 < n and labels[i] != labels[i + 1]:
                onward = _log_add(onward, label[i + 1, t + 1])
            label[i, t] = onward + log_probs[t, labels[i]]
    return blank, label


@jit
def _replace(probs, rivals, labels, blank_to, label_to, blank_on, label_on):
    """Sums with label i replaced by each rival, and left out: (L, Q + 1).

    Args:
        probs: (T, Q) probabilities of the rivals.
        blank_to, label_to: of `_prefixes`.
        blank_on, label_on: of `_suffixes`.
    """
    n_frames, n = len(probs), len(labels)
    found = np.full((n, len(rivals) + 1), -np.inf)
    nothing = np.full(n_frames + 1, -np.inf)
    for i in range(n):
        before = label_to[i - 1] if i > 0 else nothing
        behind = label_on[i + 1] if i + 1 < n else nothing
        left = labels[i - 1] if i > 0 else -1
        right = labels[i + 1] if i + 1 < n else -1
        _replace_one(
            probs,
            rivals,
            left,
            right,
            blank_to[i],
            before,
            blank_on[i + 1],
            behind,
            found[i],
        )
        out = -np.inf
        for t in range(n_frames + 1):
            said = blank_to[i, t]
            if left != right:
                said = _log_add(said, before[t])
            if i + 1 < n:
                out = _log_add(out, said + behind[t])
            elif t == n_frames:  # the end follows any label
                out = _log_add(blank_to[i, t], before[t])
        found[i, -1] = out
    return found


@jit
def _replace_one(
    probs, rivals, left, right, blank_to, before, blank_on, behind, out
) -> None:
    """Fill `out` with the sums over all paths that say a rival between two labels.

    The running sums are plain numbers times exp(scale), the totals times exp(top).
    """
    n_frames, n_rivals = probs.shape
    running, total = np.zeros(n_rivals), np.zeros(n_rivals)
    scale = top = -np.inf
    for t in range(n_frames):
        into = _log_add(blank_to[t], before[t])  # of a rival that is not `left`
        if into > scale:
            running *= np.exp(scale - into) if scale > -np.inf else 0.0
            scale = into
        if scale == -np.inf:
            continue
        both, alone = np.exp(into - scale), np.exp(blank_to[t] - scale)
        most = 0.0
        for q in range(n_rivals):
            entered = alone if rivals[q] == left else both
            running[q] = probs[t, q] * (running[q] + entered)
            most = max(most, running[q])
        if 0.0 < most < _SMALL:
            running /= most
            scale += np.log(most)
        onward = _log_add(blank_on[t + 1], behind[t + 1])
        if onward == -np.inf:
            continue
        if onward + scale > top:
            total *= np.exp(top - onward - scale) if top > -np.inf else 0.0
            top = onward + scale
        both = np.exp(onward + scale - top)
        alone = np.exp(blank_on[t + 1] + scale - top)
        for q in range(n_rivals):
            total[q] += running[q] * (alone if rivals[q] == right else both)
    for q in range(n_rivals):
        if total[q] > 0.0:
            out[q] = np.log(total[q]) + top
