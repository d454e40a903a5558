"""Packing an experiment, its model card, and uploading it.

card    the model card: what a packed model is, how to run it, and what it scores
pack    pack a trained model as ESPnet publishes them: a folder for the Hub and an ...
upload  upload a packed model to the Hub; what is there already is not sent again
"""
