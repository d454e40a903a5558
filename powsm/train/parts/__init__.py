"""Which parts of a model are trained, where it is not all of it.

adapters  LoRA: small matrices beside layers of a trained model, trained alone
freeze    parameters that stay as they are, by name
"""
