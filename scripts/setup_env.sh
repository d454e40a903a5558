#!/usr/bin/env bash
# Make .venv: Python 3.12 or 3.13 and the packages of requirements.lock.
# Usage: scripts/setup_env.sh
# No root is needed. A second call does nothing; an interrupted call is taken up again.
set -euo pipefail

uv_version=0.13.9    # the installer, put into .venv itself
need_mb=7000         # size of a complete .venv
repo=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${repo}/.venv
stamp=${venv}/.setup_done           # what .venv was made from, written last
interrupted=${venv}/.setup_running  # is there while packages are being written

say() { printf 'setup_env: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# What .venv depends on: the lock file, the project file, its own place, its Python.
fingerprint() {
    local python=$1
    cat "${repo}/requirements.lock" "${repo}/pyproject.toml" | sha256sum
    echo "${venv}"
    "${python}" -c 'import sys; print(sys.version)'
}

# True for an interpreter of the right version that can make environments.
# It is run, not looked up: pyenv puts names on PATH that answer "not found".
is_usable() {
    "$1" -c 'import sys, venv, ensurepip
sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

find_python() {
    local candidate minor
    for candidate in python3.12 python3.13 python3 python; do
        if is_usable "${candidate}"; then
            "${candidate}" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    while IFS= read -r candidate; do
        if is_usable "${candidate}"; then
            echo "${candidate}"
            return
        fi
    done < <(for minor in 3.12 3.13; do
        printf '%s\n' "${PYENV_ROOT:-${HOME}/.pyenv}/versions/${minor}".*/bin/python |
            sort --version-sort --reverse
    done)
    if command -v uv >/dev/null; then
        uv python find '>=3.12,<3.14' 2>/dev/null ||
            { uv python install 3.12 >&2 && uv python find 3.12; }
    fi
}

if [[ $# -gt 0 ]]; then
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2
    [[ $1 == --help ]] && exit 0
    die "takes no arguments, got: $*"
fi

# A link to another disk is welcome, one to the environment of another checkout is not.
if [[ -L ${venv} && -e ${venv}/bin/pip ]] && ! grep -qF "${venv}/bin" "${venv}/bin/pip"; then
    die "${venv} is a link to $(readlink "${venv}"), the environment of another checkout," \
        "whose powsm it runs. To make one here: remove the link"
fi

if [[ -f ${stamp} ]] && is_usable "${venv}/bin/python" &&
    [[ $(fingerprint "${venv}/bin/python") == "$(<"${stamp}")" ]]; then
    say "${venv} is up to date"
    exit 0
fi

python=$(find_python)
[[ -n ${python} ]] || die "no Python 3.12 or 3.13 with the venv module was found: not \
as python3.12, python3.13, python3 or python on PATH, not in \
${PYENV_ROOT:-${HOME}/.pyenv}/versions, and there is no uv to fetch one. Install one \
of: 'apt install python3.12 python3.12-venv', 'pyenv install 3.12', or uv \
(https://docs.astral.sh/uv), then call this again."

present_mb=0
[[ ! -d ${venv} ]] || present_mb=$(du -sm "${venv}" | cut -f1)
free_mb=$(df -Pm "${repo}" | awk 'NR == 2 {print $4}')
missing_mb=$((need_mb > present_mb ? need_mb - present_mb : 0))
say "making ${venv} with ${python}:" \
    "$(grep -c '^[a-z]' "${repo}/requirements.lock") packages, about 6.5 GB," \
    "1 to 5 minutes on a fast line (${free_mb} MB free)"
((free_mb > missing_mb)) ||
    die "needs ${missing_mb} MB more than is there, but only ${free_mb} MB are free on" \
        "the disk of ${repo}: make room or put the repository elsewhere"

# Scripts in .venv/bin hold the path of .venv: one that was moved is made anew.
if ! is_usable "${venv}/bin/python" ||
    ! grep -qF "${venv}/bin" "${venv}/bin/pip" 2>/dev/null; then
    "${python}" -m venv --clear "${venv}"
fi
rm -f "${stamp}"
reinstall=()
[[ ! -f ${interrupted} ]] || reinstall=(--reinstall)
touch "${interrupted}"

# uv takes the machine's certificates (a proxy's, say) instead of its built-in ones.
run_pip() { "${venv}/bin/python" -m pip --disable-pip-version-check "$@"; }
if run_pip install --quiet "uv==${uv_version}" &&
    "${venv}/bin/uv" pip install --system-certs --python "${venv}/bin/python" \
        --compile-bytecode --require-hashes "${reinstall[@]}" --requirement "${repo}/requirements.lock" >&2
then
    say "packages installed"
else
    say "uv did not manage; pip goes on (slower, and it reads your pip.conf)"
    run_pip install --require-hashes "${reinstall[@]/--/--force-}" \
        --requirement "${repo}/requirements.lock" >&2
fi
run_pip install --quiet --no-deps --no-build-isolation --editable "${repo}" >&2
"${venv}/bin/python" -c 'import espnet2, powsm, torch'

fingerprint "${venv}/bin/python" >"${stamp}.new"
mv "${stamp}.new" "${stamp}"
rm "${interrupted}"
say "done: ${venv}"
