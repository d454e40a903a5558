# shellcheck shell=bash
# What is on the path: the programs of .venv, which scripts/setup_env.sh makes.
# -P: the folder of the recipe may be a link
repo=$(CDPATH='' cd -P "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
if [[ -x ${repo}/.venv/bin/python ]]; then
    export PATH=${repo}/.venv/bin:${PATH}
elif [[ ${dry_run:-false} == false ]]; then
    echo "path.sh: there is no ${repo}/.venv yet: run scripts/setup_env.sh" >&2
    exit 1
fi
export PYTHONUTF8=1
