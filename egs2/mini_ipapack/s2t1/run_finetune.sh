#!/usr/bin/env bash
# A new language: train phone recognition on four languages, go on with ten minutes of
# the fifth, and compare the two models on the test set.
# Usage: [old="eng fra ..."] [new=rus] [root=FOLDER] ./run_finetune.sh [option of run.sh]...
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"

old=${old:-"eng fra ita spa"}
new=${new:-rus}
root=${root:-.}                      # downloads, data, dump and exp stand here
exp=${root}/exp/finetune
dump=${root}/dump/finetune

common=(
    --downloads "${root}/downloads" --data "${root}/data" --expdir "${exp}"
    --token_list "${exp}/token_list" --decode_configs conf/decode_ctc_greedy.yaml
    --set "tasks=[pr]" --set ctc_only_updates=100000  # phones are all that is compared
)
# the learning rate falls to zero over the updates of each run
./run.sh "${common[@]}" --langs "${old}" --dump "${dump}/old" --exp_name old \
    --set max_epoch=4 --set num_iters_per_epoch=200 \
    --set "scheduler_conf.warmup_steps_list=[0,200,800]" \
    --set "scheduler_conf.warmup_lr_list=[0.0,0.0025,0.0]" "$@"
# its vocabulary is that of the old one: options of that, given for the first, are none here
./run.sh "${common[@]}" --stage 4 --langs "${new}" --subset 10min --dump "${dump}/new" \
    --exp_name new --init_from "${exp}/old" --extend_vocab \
    --set max_epoch=3 --set num_iters_per_epoch=100 \
    --set "scheduler_conf.warmup_steps_list=[0,50,300]" \
    --set "scheduler_conf.warmup_lr_list=[0.0,0.001,0.0]" "$@" --

# a plan compares nothing, and neither does a run that ends before stage 12
[[ ! " $* " =~ \ --(dry[_-]run|check|help)[\ =] ]] || exit 0
[[ ! " $* " =~ .*\ --stop[_-]stage[\ =]([0-9]+) ]] || ((BASH_REMATCH[1] >= 12)) || exit 0
. ./path.sh
powsm compare "${exp}/old" "${exp}/new" --dump "${dump}/new" --by_lang \
    --out "${exp}/COMPARISON.md"
