"""The `powsm` command, and what a command of `local` needs.

main        the table: verb -> module, loaded when it is called
run         options, log, and the one place that catches errors
options     options that several commands have
stages      the verbs that are stages of a recipe
recordings  the verbs that hear recordings
ipa         IPA as phones
info        what a model is
import_corpus  speech of your own as a corpus
score       anyone's hypotheses
weigh       how often each utterance of a set is trained on
cost        what the stages of a recipe cost with these settings
compare     two experiments
ablate      an ablation from one YAML file
reproduce   a published table
check       machine and data before the stages
submit      a stage as Slurm jobs
"""
