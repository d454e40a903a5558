"""Which parts of a model are trained, where it is not all of it, and by whom.

adapters  LoRA: small matrices beside layers of a trained model, trained alone
freeze    parameters that stay as they are, by name
teacher   a trained model whose CTC head a model without a decoder also learns from
"""
