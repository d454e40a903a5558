#!/usr/bin/env bash
# Refuse files over 500 kB: data and models do not belong in the repository.
# Usage: scripts/check_large_files.sh FILE...   (pre-commit gives the changed files)
set -euo pipefail
limit_kb=500
status=0
for file in "$@"; do
    kb=$(($(wc -c <"${file}") / 1000))
    if ((kb > limit_kb)); then
        echo "${file}: ${kb} kB, more than ${limit_kb} kB: keep it out, or make it smaller" >&2
        status=1
    fi
done
exit "${status}"
