"""The loops of `powsm.score.distance`, compiled: edit tables over coded phones.

Sequences are one array of numbers with the place where each starts and ends; costs are
whole numbers. A table `sub` without rows means that every edit costs 1.
"""

import numpy as np

from powsm.files.compiled import jit

# What a step of an alignment does; the order of preference between equally cheap ones
# is in `_fill_choices`.
_DIAGONAL, _DELETION, _INSERTION = 0, 1, 2


@jit
def _common_ends(hyp, h0, h1, ref, r0, r1):
    """How many phones two sequences share at their head and, of the rest, their tail.

    For all three metrics it costs nothing to align them: changing x into y and dropping
    one of them never beats dropping the other (gap[y] <= sub[x, y] + gap[x]).
    """
    head = 0
    while h0 + head < h1 and r0 + head < r1 and hyp[h0 + head] == ref[r0 + head]:
        head += 1
    h0 += head
    r0 += head
    tail = 0
    most = min(h1 - h0, r1 - r0)
    while tail < most and hyp[h1 - 1 - tail] == ref[r1 - 1 - tail]:
        tail += 1
    return head, tail


@jit
def _sub_cost(sub, h, r):
    if len(sub) == 0:
        return np.int32(h != r)
    return np.int32(sub[h, r])


@jit
def sum_costs(hyp, hyp_start, ref, ref_start, sub, gap, first, last, cost):
    """Fill cost[first:last] with the edit costs, keeping one row of the edit table."""
    longest = 0
    for pair in range(first, last):
        longest = max(longest, ref_start[pair + 1] - ref_start[pair])
    row = np.empty(longest + 1, np.int32)
    ref_gap = np.empty(longest, np.int32)
    for pair in range(first, last):
        h0, h1 = hyp_start[pair], hyp_start[pair + 1]
        r0, r1 = ref_start[pair], ref_start[pair + 1]
        head, tail = _common_ends(hyp, h0, h1, ref, r0, r1)
        h0, h1 = h0 + head, h1 - tail
        r0, n_ref = r0 + head, r1 - tail - r0 - head
        row[0] = 0
        for j in range(n_ref):
            ref_gap[j] = gap[ref[r0 + j]]
            row[j + 1] = row[j] + ref_gap[j]
        for i in range(h0, h1):
            h = hyp[i]
            insertion = gap[h]
            diagonal = row[0]
            left = diagonal + insertion
            row[0] = left
            for j in range(n_ref):
                up = row[j + 1]
                by_diagonal = diagonal + _sub_cost(sub, h, ref[r0 + j])
                best = min(by_diagonal, up + insertion)
                left = min(best, left + ref_gap[j])
                diagonal = up
                row[j + 1] = left
        cost[pair] = row[n_ref]


@jit
def _fill_choices(hyp, h0, n_hyp, ref, r0, n_ref, sub, gap, row, choice):
    """Fill choice, (n_hyp + 1) x (n_ref + 1) in one row, with the step into each cell.

    `row` holds one row of the edit table, n_ref + 1 costs.
    """
    row[0] = 0
    for j in range(n_ref):
        row[j + 1] = row[j] + gap[ref[r0 + j]]
    for i in range(n_hyp):
        h = hyp[h0 + i]
        diagonal = row[0]
        row[0] += gap[h]
        for j in range(n_ref):
            r = ref[r0 + j]
            up = row[j + 1]
            by_deletion = row[j] + gap[r]
            by_insertion = up + gap[h]
            by_diagonal = diagonal + _sub_cost(sub, h, r)
            best = min(by_deletion, by_insertion, by_diagonal)
            # rapidfuzz's choice between equals: a deletion; then an insertion if
            # the cell it comes from is the cheaper one
            if by_deletion == best:
                chosen = _DELETION
            elif by_insertion == best and (up < diagonal or by_diagonal > best):
                chosen = _INSERTION
            else:
                chosen = _DIAGONAL
            choice[(i + 1) * (n_ref + 1) + j + 1] = chosen
            row[j + 1] = best
            diagonal = up


@jit
def _trace_back(hyp, h0, n_hyp, ref, r0, n_ref, choice, counts, at, path_ref, path_hyp):
    """Count the edits of a filled table; unless `at` is negative, keep the steps.

    Returns:
        Where the steps begin that end before `at`.
    """
    keep = at >= 0
    i, j = n_hyp, n_ref
    while i > 0 or j > 0:
        if i == 0:
            chosen = _DELETION
        elif j == 0:
            chosen = _INSERTION
        else:
            chosen = choice[i * (n_ref + 1) + j]
        r = np.int32(-1)
        h = np.int32(-1)
        if chosen != _INSERTION:
            j -= 1
            r = ref[r0 + j]
        if chosen != _DELETION:
            i -= 1
            h = hyp[h0 + i]
        if chosen != _DIAGONAL:
            counts[chosen] += 1
        elif h != r:
            counts[0] += 1
        if keep:
            at -= 1
            path_ref[at] = r
            path_hyp[at] = h
    return at


@jit
def align_pairs(
    hyp,
    hyp_start,
    ref,
    ref_start,
    sub,
    gap,
    first,
    last,
    counts,
    steps,
    path_ref,
    path_hyp,
):
    """Fill counts[first:last] with (substitutions, deletions, insertions).

    Unless `steps` is empty, also the number of steps of each alignment and, from
    hyp_start + ref_start of the pair on, the phone of either side at each step, -1 for
    the gap.
    """
    most_cells = 0
    longest = 0
    for pair in range(first, last):
        n_hyp = hyp_start[pair + 1] - hyp_start[pair]
        n_ref = ref_start[pair + 1] - ref_start[pair]
        most_cells = max(most_cells, (n_hyp + 1) * (n_ref + 1))
        longest = max(longest, n_ref)
    row = np.empty(longest + 1, np.int32)
    choice = np.empty(most_cells, np.uint8)
    for pair in range(first, last):
        h0, h1 = hyp_start[pair], hyp_start[pair + 1]
        r0, r1 = ref_start[pair], ref_start[pair + 1]
        head, tail = _common_ends(hyp, h0, h1, ref, r0, r1)
        n_hyp = h1 - tail - h0 - head
        n_ref = r1 - tail - r0 - head
        keep = len(steps) > 0
        start = h0 + r0
        end = start + head + n_hyp + n_ref + tail  # filled from the back
        for k in range(tail * keep):
            path_ref[end - 1 - k] = ref[r1 - 1 - k]
            path_hyp[end - 1 - k] = hyp[h1 - 1 - k]
        middle = end - tail if keep else -1
        h, r = h0 + head, r0 + head
        _fill_choices(hyp, h, n_hyp, ref, r, n_ref, sub, gap, row, choice)
        edits = counts[pair]
        at = _trace_back(
            hyp, h, n_hyp, ref, r, n_ref, choice, edits, middle, path_ref, path_hyp
        )
        if keep:
            for k in range(head):
                path_ref[start + k] = ref[r0 + k]
                path_hyp[start + k] = hyp[h0 + k]
            n_middle = end - tail - at
            for k in range(n_middle + tail):  # close the gap behind the head
                path_ref[start + head + k] = path_ref[at + k]
                path_hyp[start + head + k] = path_hyp[at + k]
            steps[pair] = head + n_middle + tail
