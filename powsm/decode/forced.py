"""The likeliest CTC path that says given labels, in memory that grows with time alone.

The usual search keeps where it came from for each frame and state: two hours of speech
with its phones are 180,000 frames and 170,000 states, 30 GB. Here the search keeps, for
each state, only where its path was in the middle of the recording. The end then tells
the middle, and the halves are searched in the same way (Hirschberg, CACM 18(6), 1975).
The halves of the halves are half as many states of half as many frames, so all of it
takes twice the time of one search.
"""

import numba
import numpy as np

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


@numba.njit(cache=True)
def _step(scores, labels, before, after, froms, frame, first, low, high) -> None:
    """One frame of the search, for the states [low, high); arrays begin at `first`.

    State 2k is the blank before label k, state 2k + 1 is label k. A path stays, goes
    one state on, or leaves out the blank between two labels that differ. Of equal ways
    the one that moves least is taken.
    """
    for state in range(low, high):
        i = state - first
        best, move, column = before[i], 0, 0
        if i > 0 and before[i - 1] > best:
            best, move = before[i - 1], 1
        if state % 2:
            column = labels[state // 2]
            if i > 1 and column != labels[state // 2 - 1] and before[i - 2] > best:
                best, move = before[i - 2], 2
        after[i] = best + scores[frame, column]
        froms[i] = move


@numba.njit(cache=True)
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
    before = np.full(n_states, -np.inf)
    after = np.full(n_states, -np.inf)
    froms = np.zeros(n_states, np.int8)
    before[0] = scores[begin, 0] if is_open else 0.0
    if is_open and n_states > 1:
        before[1] = scores[begin, labels[first // 2]]
    is_small = n_frames * n_states <= small or n_frames < 4
    middle = (begin + end) // 2
    table = np.zeros((n_frames if is_small else 0, n_states), np.int8)
    ways = np.arange(n_states)  # where the path of each state is in the middle
    ways_after = np.arange(n_states)
    for frame in range(begin + 1, end):
        # states that can be reached by now, and from which the end can be
        low = max(first, last - int(is_ajar) - 2 * (end - 1 - frame))
        high = min(last, first + int(is_open) + 2 * (frame - begin)) + 1
        _step(scores, labels, before, after, froms, frame, first, low, high)
        before, after = after, before
        if is_small:
            table[frame - begin] = froms
        elif frame > middle:
            for i in range(low - first, high - first):
                ways_after[i] = ways[i - froms[i]]
            ways, ways_after = ways_after, ways
    if is_ajar and not before[n_states - 1] > before[n_states - 2]:
        last -= 1
    if not is_small:
        return last, first + ways[last - first]
    state = last
    for frame in range(end - 1, begin - 1, -1):
        path[frame] = state
        state -= table[frame - begin, state - first]
    return last, -1
