"""Verbs that are stages of a recipe, in their order.

tokens      stage 5: symbols and SentencePiece models
start_from  stage 5 with another model's vocabulary and weights
stats       stage 10: mean and variance of features
train       stage 11
decode      stage 12
align_set   stage 12: when each phone of a set was said
score_exp   stage 13: rates
report      stage 13: RESULTS.md, pictures, page
pack        stage 14
upload      stage 15
current     stages 2, 5, 10 and 11: whether their command need not run again
ranks       stages 11 and 12 as several processes of this machine
"""
