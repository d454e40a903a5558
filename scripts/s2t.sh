#!/usr/bin/env bash
# All stages of a POWSM recipe, with ESPnet's stage numbers. A recipe's run.sh calls it.
#
#    0 download   1 prepare   2 report   3 audio   4 filter, normalise, prompt   5 tokens
#   10 statistics   11 train   12 decode   13 score   14 pack   15 upload
#
# The last two run when they are asked for: --stop_stage 14, or 15 with --hf_repo.
# Usage: ./run.sh [--stage N] [--stop_stage N] [--skip_stages "N ..."] [--option value]...
# A bare --flag means true. The value of an option is in brackets:
set -euo pipefail

## What to run
stage=0                 # first stage
stop_stage=13           # last stage
skip_stages=            # stages to leave out, such as "3 10"
dry_run=false           # print the plan (commands, inputs, outputs, cost) and stop
check=false             # print the plan, look whether machine and data fit it, and stop
nj=2                    # processes for the stages that run in parallel on the CPU
ngpu=0                  # GPUs of this machine; 0 trains and decodes on the CPU
nproc=1                 # processes that train and decode together on the CPU
cluster=conf/cluster/default.yaml  # what Slurm jobs ask for, with cmd_backend=slurm

## Folders
downloads=downloads     # what stage 0 fetches
data=data               # utterances of each set
dump=dump/raw           # examples of each set
token_list=             # symbols and SentencePiece models; default: data/token_list
expdir=exp              # statistics and experiments

## Data
download=               # script of stage 0
download_opts=()        # an option for it, as --download_opts=--name=value
audio_format=inplace    # inplace, or flac.ark or wav: copies that stock ESPnet reads
skip_corpora=           # corpora of the downloads that stage 1 leaves out: "cv tamil"
skip_bad_shards=false   # true: stage 1 goes on without shards that cannot be used
ipa_policy=strict       # strict; as published: released, or powsm_fix for POWSM-fix
ipa_labels=             # original, or clean: simplified; default: clean with released
text_policy=powsm_fix   # powsm_fix, or released: the published orthography
min_duration=0.5        # seconds; shorter utterances are dropped
max_duration=20.0       # seconds; longer utterances are dropped
max_phones=300          # utterances with more phones are dropped
max_unknown_rate=0.01   # share of unknown phone symbols at which stage 4 stops
langs=                  # train on these languages only, as "eng fra"; default: on all
subset=                 # train on a part stratified by language: 10min 10h 100h 250h 1kh

eval_sets=              # sets to make of the corpora that db.sh names: "timit buckeye"

## Tokens
nbpe=40000              # pieces of the SentencePiece model
phones=all              # phone symbols: all of PanPhon, or observed: those of training
languages=all           # language symbols: all 87, or observed: those of training
time_symbols=true       # a symbol for every 0.02 s of the window, or only the two ends

## Training
config=                 # training settings, a YAML file
set=()                  # change one of them, as --set optim_conf.lr=0.001
trainer=                # powsm, or espnet: its stock loop; default: as config says
init_from=              # begin with this model: experiment, packed model or Hub tag
goes_on_from=           # finished experiment that this one continues, as exp/NAME
extend_vocab=false      # with it, add languages, phones and letters that it lacks
stats_hours=100.0       # hours of speech from which mean and variance are taken
stats_window=           # own, or published: of clips padded to 20 s; default: as config says
exp_name=               # experiment folder in expdir; default: named after the settings

## Decoding and scoring
decode_configs=         # decoding profiles, YAML files
download_model=         # decode this, train none: folder, archive or Hub tag of a model
skip_bad_audio=false    # score recordings that cannot be read as all deletions
test_sets=              # sets to decode; default: every test set of the dump folder
align=false             # true: write when each decoded phone was said, for Praat too

## Publishing
hf_repo=                # user/model on the Hub: for the model card, and for stage 15
hf_private=true         # whether stage 15 makes that repository a private one

. scripts/common.sh         # log, die, in_stage, run_stage, run_once, finish_stages
. scripts/parse_options.sh  # the variables above are the options
[[ ${check} == false ]] || dry_run=true
. ./path.sh                 # the programs
. ./cmd.sh                  # where jobs run: cmd_backend
cmd_backend=${cmd_backend:-local}
[[ ${cmd_backend} =~ ^(local|slurm)$ ]] ||
    die "cmd.sh: cmd_backend is local or slurm: ${cmd_backend}"

for name in stage stop_stage nj nproc ngpu nbpe max_phones; do
    least=$([[ ${name} =~ ^(nj|nproc|nbpe)$ ]] && echo 1 || echo 0)
    # a leading 0 would make 08 an octal number
    [[ ${!name} =~ ^(0|[1-9][0-9]{0,8})$ && ${!name} -ge ${least} ]] ||
        die "--${name} is a whole number of ${least} or more: ${!name}"
done
((stage <= stop_stage)) || die "--stage ${stage} comes after --stop_stage ${stop_stage}"
for name in skip_stages skip_corpora eval_sets decode_configs test_sets; do
    # `read` takes one line of a list
    printf -v "${name}" '%s' "${!name//[[:space:]]/ }"
done
skip_stages=${skip_stages//,/ }
[[ ${skip_stages} =~ ^\ *((0|[1-9][0-9]*)(\ +|$))*$ ]] ||
    die "--skip_stages is a list such as '3 10': ${skip_stages}"
while read -r name choices; do  # hours before the stage that would find it out
    [[ " ${choices} " == *" ${!name:-unset} "* ]] ||
        die "--${name} is one of ${choices% unset}: ${!name}"
done <<END
audio_format inplace flac.ark wav
ipa_policy strict released powsm_fix
ipa_labels original clean unset
text_policy powsm_fix released
subset 10min 10h 100h 250h 1kh unset
phones all observed
languages all observed
trainer powsm espnet unset
stats_window own published unset
END
[[ -f ${config} ]] || die "--config ${config}: no such file; take one of" conf/train_*.yaml
read -ra profiles <<<"${decode_configs}"
((stop_stage < 12)) || for name in "${profiles[@]}"; do
    [[ -f ${name} ]] || die "--decode_configs ${name}: no such file; take of" \
        conf/decode_*.yaml
done
of_stats=()             # what of the settings statistics follow from
for change in "${set[@]}"; do
    [[ ! ${change} =~ ^(frontend|stats_window|preprocessor_conf(\.speech_length)?=) ]] ||
        of_stats+=("${change}")
done
[[ -z ${stats_window} ]] || set+=("stats_window=${stats_window}")
for name in ${eval_sets//,/ }; do
    [[ -z ${test_sets} ]] || test_sets+=" test_${name#test_}"
done
token_list=${token_list:-${data}/token_list}
token_dir=${token_list}/bpe_unigram${nbpe}
stats_dir=${expdir}/s2t_stats_raw
stats=${stats_dir}      # the folder, or a file of it
init=()
if [[ -n ${init_from} ]]; then  # its vocabulary, weights and statistics, in one folder
    token_dir=$(basename "${init_from}")
    token_dir=${token_list}/from_${token_dir//[^A-Za-z0-9._-]/_}
    stats_dir=${token_dir}
    stats=${token_dir}/feats_stats.npz
    init=("init_param=[${token_dir}/init.pth]")
fi
if [[ -z ${exp_name} ]]; then
    exp_name=$(basename "${config}" .yaml)_bpe${nbpe}
    for change in "${set[@]}"; do
        # more epochs go on in the same experiment
        [[ ${change} == max_epoch=* ]] || exp_name+=_${change//=/}
    done
    [[ -z ${trainer} ]] || exp_name+=_${trainer}
    [[ -z ${init_from} ]] || exp_name+=_$(basename "${token_dir}")
    [[ -z ${goes_on_from} ]] || exp_name+=_after_$(basename "${goes_on_from}")
    exp_name=s2t_${exp_name//[^A-Za-z0-9._-]/_}
fi
[[ -n ${init_from} || ${extend_vocab} == false ]] ||
    die "--extend_vocab: not used, there is no --init_from; leave it out"
for name in nbpe phones languages time_symbols stats_hours; do
    [[ -z ${init_from}${download_model} || " ${given[*]} " != *" ${name} "* ]] ||
        die "--${name}: not used, a model of --init_from or --download_model has its own" \
            "tokens and statistics; leave it out"
done
((ngpu == 0 || nproc == 1)) ||
    die "--nproc ${nproc}: not used with --ngpu ${ngpu}, a process for each GPU; leave it out"
model=()
if [[ -n ${download_model} ]]; then
    [[ -z ${init_from}${goes_on_from}${trainer} && ${#set[@]} -eq 0 ]] ||
        die "--init_from, --goes_on_from, --trainer, --set and --stats_window are of a" \
            "training, and with --download_model there is none; leave them out"
    skip_stages+=" 5 10 11"
    model=(--model "${download_model}")
    exp_name=${download_model}
    [[ ! -e ${download_model} ]] || exp_name=$(basename "${download_model}" .zip)
    [[ ${exp_name} != packed ]] ||  # as stage 14 calls it
        exp_name=$(basename "$(dirname "$(realpath "${download_model}")")")_packed
    exp_name=${exp_name//[^A-Za-z0-9._-]/_}
    ((stop_stage < 14)) || die "--download_model ${download_model} is published already:" \
        "--stop_stage 13"
fi
exp=${expdir}/${exp_name}
bytes=$(LC_ALL=C; echo "${#exp_name}")
((bytes <= 200)) || die "the experiment's name has ${bytes} bytes, expected 200 at" \
    "most: give it one with --exp_name"

# What comes before a command that is to run as jobs: set_jobs FOLDER OPTION...
set_jobs() {
    jobs=(powsm submit --cluster "${cluster}" --stage "${current_stage}"
        --log "$1/log/stage${current_stage}" "${@:2}" --)
}

# What starts a command on this machine: a process for each GPU, or --nproc without.
launcher=()
n_ranks=$((ngpu > 0 ? ngpu : nproc))
((n_ranks == 1)) ||
    launcher=(powsm ranks --n "${n_ranks}" --)

if [[ ${dry_run} == true && -f costs.yaml ]]; then
    costs=$(<costs.yaml)
fi
if [[ -n ${costs} && -x ${repo:-}/.venv/bin/powsm ]]; then  # of path.sh
    read -ra sets <<<"${test_sets}"
    costs=$("${repo}/.venv/bin/powsm" cost --config "${config}" --set "${set[@]}" \
        --ngpu "${ngpu}" --nbpe "${nbpe}" ${trainer:+--trainer "${trainer}"} \
        ${subset:+--subset "${subset}"} \
        ${goes_on_from:+--goes_on_from "${goes_on_from}"} \
        --dump "${dump}" --test_sets "${sets[@]}" --profiles "${profiles[@]}")
fi

# The command of stage 11; it says no where an experiment was trained otherwise.
train=(powsm train ${trainer:+--trainer "${trainer}"}
    ${goes_on_from:+--goes_on_from "${goes_on_from}"}
    --config "${config}" --dump "${dump}" --token_dir "${token_dir}"
    --stats "${stats}" --exp "${exp}")
is_trained=false
[[ -n ${download_model} ]] || ((stage > 11 || stop_stage < 11)) || is_trained=true
if [[ ${is_trained} == true && ${dry_run} == false ]] && ((stage < 11)) &&
    [[ ! -e ${token_dir}/tokens.txt ]]; then
    log "the settings of stage 11 are looked at first"
    run_command "${train[@]}" --dry_run --set "${init[@]}" "${set[@]}"
fi

if in_stage 0 "download: -> ${downloads}"; then
    run_stage "${downloads}" -- \
        python "${download}" --downloads "${downloads}" "${download_opts[@]}"
fi

if in_stage 1 "prepare: ${downloads} -> ${data}/{train,dev,test_*}"; then
    prepare=(python local/prepare_data.py --downloads "${downloads}" --data "${data}")
    read -ra names <<<"${skip_corpora//,/ }"
    [[ ${#names[@]} -eq 0 ]] || prepare+=(--skip_corpora "${names[@]}")
    [[ ${skip_bad_shards} == false ]] || prepare+=(--skip_bad_shards)
    if [[ ${cmd_backend} == slurm ]]; then
        set_jobs "${expdir}"
        run_stage "${data}" "${downloads}" -- \
            "${jobs[@]}" "${prepare[@]}" --nj '{cpus}' --shards '{}'
        prepare+=(--merge)
    fi
    run_stage "${data}" "${downloads}" -- "${prepare[@]}" --nj "${nj}"
fi

limits=(--min_duration "${min_duration}" --max_duration "${max_duration}"
    --max_phones "${max_phones}" ${langs:+--langs "${langs}"})
if in_stage 2 "check and report: ${data} -> ${data}/report"; then
    run_once "${data}/report" "${data}"/*/text.ipa -- \
        python local/data_report.py --data "${data}" --nj "${nj}" \
        --policy "${ipa_policy}" ${ipa_labels:+--labels "${ipa_labels}"} \
        --text_policy "${text_policy}" "${limits[@]}"
fi

if in_stage 3 "audio: ${data}/*/wav.scp, ${audio_format}"; then
    if [[ ${audio_format} == inplace ]]; then
        [[ ${dry_run} == true ]] || log "the audio is read where it is, nothing to do"
    else
        run_stage "${data}" "${data}"/*/wav.scp -- \
            python local/copy_audio.py --data "${data}" --format "${audio_format}" \
            --nj "${nj}"
    fi
fi

if in_stage 4 "filter, normalise, prompt: ${data} -> ${dump}"; then
    jobs=()
    split=(--nj "${nj}")
    if [[ ${cmd_backend} == slurm ]]; then
        sets=()
        for file in "${data}"/*/text.ipa; do
            sets+=("$(basename "$(dirname "${file}")")")
        done
        set_jobs "${expdir}" --each "${sets[@]}"
        split=(--nj '{cpus}' --sets '{}')
    fi
    run_stage "${dump}" "${data}"/*/text.ipa -- \
        "${jobs[@]}" python local/prepare_dump.py --data "${data}" --dump "${dump}" \
        "${split[@]}" \
        --policy "${ipa_policy}" ${ipa_labels:+--labels "${ipa_labels}"} \
        --text_policy "${text_policy}" "${limits[@]}" \
        --max_unknown_rate "${max_unknown_rate}" ${subset:+--subset "${subset}"}
    read -ra sets <<<"${eval_sets//,/ }"
    if [[ ${#sets[@]} -gt 0 ]]; then
        run_stage "${dump}" -- python local/prepare_eval_set.py --set "${sets[@]}" \
            --data "${data}" --dump "${dump}"
    fi
fi

if in_stage 5 "tokens: ${dump}/train -> ${token_dir}"; then
    if [[ -n ${init_from} ]]; then
        extend=()
        [[ ${extend_vocab} == false ]] || extend=(--extend_vocab)
        files=()  # what tells that the model changed; a Hub tag has none
        for file in "${init_from}" "${init_from}"/{valid.*.pth,meta.yaml}; do
            [[ ! -f ${file} ]] || files+=("${file}")
        done
        run_once "${token_dir}" "${dump}/train/text" "${files[@]}" -- \
            powsm start-from --init_from "${init_from}" \
            --dump_set "${dump}/train" --out "${token_dir}" "${extend[@]}"
    else
        time_step=0.02
        [[ ${time_symbols} == true ]] || time_step=none
        run_stage "${token_dir}" "${dump}/train/text" -- \
            powsm tokens --dump_set "${dump}/train" \
            --out "${token_list}" --nbpe "${nbpe}" --phones "${phones}" \
            --languages "${languages}" --time_step_s "${time_step}"
    fi
fi

if in_stage 10 "statistics: ${dump}/train -> ${stats_dir}"; then
    if [[ -n ${init_from} ]]; then
        log "mean and variance stay those of ${init_from}"
    else
        run_once "${stats_dir}" "${dump}/train/wav.scp" "${config}" -- \
            powsm stats --dump "${dump}/train" --config "${config}" \
            --out "${stats_dir}" --stats_hours "${stats_hours}" \
            ${stats_window:+--stats_window "${stats_window}"} \
            ${of_stats:+--set "${of_stats[@]}"}
    fi
fi

if in_stage 11 "train: ${dump}/{train,dev} -> ${exp}"; then
    start=("${launcher[@]}")
    gpus=${ngpu}
    gpus_here=${ngpu}
    if [[ ${cmd_backend} == slurm ]]; then
        set_jobs "${exp}" --ranks
        start=("${jobs[@]}")
        gpus='{gpus}'
        gpus_here=0  # a login node has none
    fi
    stage_11=("${exp}" "${dump}"/{train,dev}/{wav.scp,text} "${token_dir}"
        "${stats_dir}" "${config}" --
        "${start[@]}" "${train[@]}" --set "ngpu=${gpus}" "${init[@]}" "${set[@]}")
    wanted=
    [[ ${dry_run} == true ]] || wanted=$(unfinished "${stage_11[@]}")
    if [[ -n ${wanted} ]]; then
        # asked before a byte is written in a folder with weights
        [[ -z $(find -L "${exp}" -name '*.pth' -o -name '*.ckpt' 2>/dev/null) ]] ||
            run_command "${train[@]}" --dry_run --set "ngpu=${gpus_here}" "${init[@]}" \
                "${set[@]}"
        mkdir -p "${exp}"
        # the same settings, from this stage on; ${exp}/run.sh takes more options
        {
            printf '#!/usr/bin/env bash\ncd %q\n' "${PWD}"
            printf 'cmd_backend=%q exec scripts/s2t.sh' "${cmd_backend}"
            printf ' %q' "$@"
            printf ' --stage 11 "$@"\n'
        } >"${exp}/run.sh.new"
        chmod +x "${exp}/run.sh.new"
        mv "${exp}/run.sh.new" "${exp}/run.sh"
        log "to go on after a break: ${exp}/run.sh"
    fi
    run_once "${stage_11[@]}"
fi

if in_stage 12 "decode: ${dump}/test_* -> ${exp}/<profile>"; then
    read -ra sets <<<"${test_sets}"
    [[ ${#sets[@]} -gt 0 ]] || for folder in "${dump}"/test_*; do
        sets+=("$(basename "${folder}")")
    done
    device=cuda
    [[ ${ngpu} -gt 0 && ${cmd_backend} == local ]] || device=cpu
    decode=(powsm decode --exp "${exp}" "${model[@]}" --dump "${dump}"
        --profiles "${profiles[@]}" --sets "${sets[@]}")
    [[ ${skip_bad_audio} == false ]] || decode+=(--skip_bad_audio)
    inputs=("${profiles[@]}" "${sets[@]/#/${dump}/}")
    [[ -n ${download_model} ]] || inputs+=("${exp}"/valid.*.ave*.pth)
    if [[ ${cmd_backend} == slurm ]]; then
        set_jobs "${exp}"
        run_stage "${exp}" "${inputs[@]}" -- \
            "${jobs[@]}" "${decode[@]}" --device '{device}' --shards '{}'
        run_stage "${exp}" "${inputs[@]}" -- "${decode[@]}" --merge
    else
        run_stage "${exp}" "${inputs[@]}" -- \
            "${launcher[@]}" "${decode[@]}" --device "${device}"
    fi
    [[ ${align} == false ]] || run_stage "${exp}" -- powsm align-set \
        --exp "${exp}" "${model[@]}" --dump "${dump}" --profiles "${profiles[@]}" \
        --sets "${sets[@]}" --device "${device}"
fi

if in_stage 13 "score: ${exp} -> ${exp}/RESULTS.md"; then
    run_stage "${exp}" "${exp}" "${dump}" -- \
        powsm score-exp --exp "${exp}" --dump "${dump}"
    run_stage "${exp}" "${exp}" "${dump}" -- \
        powsm report --exp "${exp}" --dump "${dump}"
fi

if in_stage 14 "pack: ${exp} -> ${exp}/packed, ${exp}/*.zip"; then
    run_stage "${exp}/packed" "${exp}"/valid.*.ave*.pth "${dump}" "${profiles[@]}" -- \
        powsm pack --exp "${exp}" --dump "${dump}" --hf_repo "${hf_repo}" \
        --profiles "${profiles[@]}"
fi

if in_stage 15 "upload: ${exp}/packed -> the Hub"; then
    [[ -n ${hf_repo} ]] || die "stage 15 needs --hf_repo user/model"
    run_stage "${exp}/packed" "${exp}/packed/meta.yaml" -- powsm upload \
        --folder "${exp}/packed" --hf_repo "${hf_repo}" --private "${hf_private}"
fi

finish_stages
has_environment() { python -c 'import powsm' 2>/dev/null; }
if [[ ${check} == true ]]; then
    has_environment ||
        die "this machine has no environment for the plan: run scripts/setup_env.sh"
    printf '\n'
    read -ra sets <<<"${test_sets}"
    powsm check --stage "${stage}" --stop_stage "${stop_stage}" \
        --downloads "${downloads}" --data "${data}" --expdir "${expdir}" \
        --test_sets "${sets[@]}" --nj "${nj}" --ngpu "${ngpu}" --nproc "${nproc}" \
        --nbpe "${nbpe}" ${subset:+--subset "${subset}"} \
        --backend "${cmd_backend}" --cluster "${cluster}" \
        "${train[@]:2}" --set "${init[@]}" "${set[@]}"
elif [[ ${dry_run} == true && ${is_trained} == true && ${#set[@]} -gt 0 ]] &&
    has_environment; then
    "${train[@]}" --dry_run --set "${init[@]}" "${set[@]}"
fi
