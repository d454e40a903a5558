"""Packing an experiment, its model card, and uploading it.

The modules:

    card         the model card: what a packed model is, how to run it, what it scores
    pack         pack a trained model as ESPnet publishes them: a folder and an archive
    stock_check  decode a clip with stock ESPnet alone, in a process of its own
    upload       upload a packed model to the Hub; what is there is not sent again
"""
