"""The likeliest CTC path that says given labels, in memory that grows with time alone.

The usual search keeps where it came from for each frame and state: two hours of speech
with its phones are 180,000 frames and 170,000 states, 30 GB. Here the search keeps, for
each state, only where its path was in the middle of the recording. The end then tells
the middle, and the halves are searched in the same way (Hirschberg, CACM 18(6), 1975).
The halves of the halves are half as many states of half as many frames, so all of it
takes twice the time of one search.
"""

import numpy as np

from powsm.files.compiled import jit

_SMALL = 1 << 24  # frames x states whose whole table fits into 16 MB


def forced_path(
    scores: np.ndarray, labels: np.ndarray, small: int = _SMALL
) -> np.ndarray:
    """The likeliest path that says the labels, in their order.

    Args:
        scores: (T, C) log-probabilities, float32; column 0 is the blank.
        labels: (L,) columns; T is at least L and the number of equal neighbours.
        small: frames x states that are searched with a whole table.

    Returns:
        (T,) the column of each frame. Of equally likely paths it is one.

    >>> scores = np.log(np.float32([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]]))
    >>> forced_path(scores, np.array([1, 1])).tolist()
    [1, 0, 1, 0]
    """
    scores = np.ascontiguousarray(scores, np.float32)
    labels = np.ascontiguousarray(labels, np.int64)
    path = np.empty(len(scores), np.int64)
    todo = [(0, len(scores), 0, 2 * len(labels), True, True)]
    while todo:
        begin, end, first, last, *is_open = todo.pop()
        last, half = _search(
            scores, labels, path, begin, end, first, last, *is_open, small
        )
        if half >= 0:
            middle = (begin + end) // 2
            todo.append((begin, middle + 1, first, half, is_open[0], False))
            todo.append((middle, end, half, last, False, False))
    columns = np.zeros(2 * len(labels) + 1, np.int64)
    columns[1::2] = labels
    return columns[path]


@jit
def _step(row, columns, leaps, before, after, froms, low, high) -> None:
    """One frame of the search, for the states [low, high).

    State 2k is the blank before label k, state 2k + 1 is label k. A path stays, goes
    one state on, or leaps over the blank between two labels that differ. Of equal ways
    the one that moves least is taken. Without branches, so that it runs in vectors.

    Args:
        row: (C,) scores of the frame.
        columns: (S,) column of each state.
        leaps: (S,) 0 where a path may leap to the state, else minus infinity.
        before, after: (S + 2,) best scores; two states that do not exist come first.
        froms: (S,) filled with how many states the path moved.
    """
    n = high - low
    stay, move, leap = before[low + 2 :], before[low + 1 :], before[low:]
    out, from_, column, may = after[low + 2 :], froms[low:], columns[low:], leaps[low:]
    for i in range(n):
        best = stay[i]
        is_move = move[i] > best
        best = move[i] if is_move else best
        leaping = leap[i] + may[i]
        is_leap = leaping > best
        best = leaping if is_leap else best
        out[i] = best + row[column[i]]
        from_[i] = 2 if is_leap else (1 if is_move else 0)


@jit
def _search(
    scores, labels, path, begin, end, first, last, is_open, is_ajar, small
) -> tuple[int, int]:
    """A path over the frames [begin, end), from state `first` to state `last`.

    Where the first score is the same for all paths it is left out.

    Args:
        path: filled where the table is small.
        is_open: the path may begin one state later.
        is_ajar: the path may end one state earlier.

    Returns:
        Its last state, and its state in the middle; -1 where `path` is filled.
    """
    n_states, n_frames = last - first + 1, end - begin
    columns = np.zeros(n_states, np.int64)
    leaps = np.full(n_states, -np.inf)
    for state in range(first + 1 - first % 2, last + 1, 2):
        label = labels[state // 2]
        columns[state - first] = label
        if state > 1 and label != labels[state // 2 - 1]:
            leaps[state - first] = 0.0
    before = np.full(n_states + 2, -np.inf)
    after = np.full(n_states + 2, -np.inf)
    froms = np.zeros(n_states, np.int8)
    before[2] = scores[begin, 0] if is_open else 0.0
    if is_open and n_states > 1:
        before[3] = scores[begin, labels[first // 2]]
    is_small = n_frames * n_states <= small or n_frames < 4
    middle = (begin + end) // 2
    table = np.zeros((n_frames if is_small else 0, n_states), np.int8)
    ways = np.arange(n_states)  # where the path of each state is in the middle
    ways_after = np.arange(n_states)
    for frame in range(begin + 1, end):
        # states that can be reached by now, and from which the end can be
        low = max(0, n_states - 1 - int(is_ajar) - 2 * (end - 1 - frame))
        high = min(n_states, 1 + int(is_open) + 2 * (frame - begin))
        _step(scores[frame], columns, leaps, before, after, froms, low, high)
        before, after = after, before
        if is_small:
            table[frame - begin] = froms
        elif frame > middle:
            for i in range(low, high):
                ways_after[i] = ways[i - froms[i]]
            ways, ways_after = ways_after, ways
    if is_ajar and not before[n_states + 1] > before[n_states]:
        last -= 1
    if not is_small:
        return last, first + ways[last - first]
    state = last
    for frame in range(end - 1, begin - 1, -1):
        path[frame] = state
        state -= table[frame - begin, state - first]
    return last, -1
