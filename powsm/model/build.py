"""Build a network to use it, from ESPnet's own classes one by one.

`S2TTask.build_model` gives the same, but its import loads every model that ESPnet has:
trainers, TTS, scipy.stats. The choices of this table are what our recipes and the
published models use. Anything else is built by the task.
"""

import argparse
import logging
from collections.abc import Mapping
from importlib import import_module

from espnet2.asr.ctc import CTC
from espnet2.s2t.espnet_ctc_model import ESPnetS2TCTCModel
from espnet2.s2t.espnet_model import ESPnetS2TModel

from powsm.model.kernels import choose_attention, choose_convolutions
from powsm.model.s2t import PowsmModel
from powsm.model.s2t_ctc import PowsmCtcModel, set_language_dropout

log = logging.getLogger(__name__)

# trained by ESPnet's s2t_ctc task; its S2T task has the others
CTC_ONLY_MODELS = ("espnet_ctc", "powsm_ctc")

# What ESPnet's S2T task offers, by key of its configuration and by the value there
_CLASSES: dict[str, dict[str, str]] = {
    "frontend": {"default": "espnet2.asr.frontend.default:DefaultFrontend"},
    "specaug": {"specaug": "espnet2.asr.specaug.specaug:SpecAug"},
    "normalize": {
        "global_mvn": "espnet2.layers.global_mvn:GlobalMVN",
        "utterance_mvn": "espnet2.layers.utterance_mvn:UtteranceMVN",
    },
    "encoder": {
        "branchformer": "espnet2.asr.encoder.branchformer_encoder:BranchformerEncoder",
        "conformer": "espnet2.asr.encoder.conformer_encoder:ConformerEncoder",
        "e_branchformer": (
            "espnet2.asr.encoder.e_branchformer_encoder:EBranchformerEncoder"
        ),
        "e_branchformer_ctc": (
            "espnet2.asr.encoder.e_branchformer_ctc_encoder:EBranchformerCTCEncoder"
        ),
        "transformer": "espnet2.asr.encoder.transformer_encoder:TransformerEncoder",
    },
    "promptencoder": {
        "transformer": "espnet2.asr.encoder.transformer_encoder:TransformerEncoder"
    },
    "decoder": {
        "transformer": "espnet2.asr.decoder.transformer_decoder:TransformerDecoder"
    },
    "model": {
        "espnet": "espnet2.s2t.espnet_model:ESPnetS2TModel",
        "powsm": "powsm.model.s2t:PowsmModel",
        # without a decoder both are ours: it gives the scores of every head
        "espnet_ctc": "powsm.model.s2t_ctc:PowsmCtcModel",
        "powsm_ctc": "powsm.model.s2t_ctc:PowsmCtcModel",
    },
}
_OPTIONAL = ("specaug", "normalize", "decoder", "promptencoder")  # may be null
_NOT_IN_TABLE = ("preencoder", "postencoder", "input_size", "init")


def task_of_model(model: str | None) -> type:
    """ESPnet's task class, with our models among its choices; its import is slow.

    Args:
        model: `model` of a training configuration; None is the default, an
            encoder-decoder.
    """
    if model in CTC_ONLY_MODELS:
        from espnet2.tasks import s2t_ctc as task

        task.model_choices.classes.setdefault("powsm_ctc", PowsmCtcModel)
    else:
        from espnet2.tasks import s2t as task

        task.model_choices.classes.setdefault("powsm", PowsmModel)
    return task.S2TTask


def build(config: Mapping) -> ESPnetS2TModel | PowsmCtcModel:
    """The network of a training configuration, as `S2TTask.build_model` builds it.

    One without a decoder is a `PowsmCtcModel`, whichever of the two it was trained as.

    Args:
        config: ESPnet's settings, with the tokens themselves or their file in
            `token_list`.

    Raises:
        KeyError: a setting is missing.
        TypeError: a part does not take what the configuration gives it.
        PowsmError: a model without a decoder, whose encoder is one that we do not read.
    """
    if config.get("model") in CTC_ONLY_MODELS:
        config = {**config, "model": "powsm_ctc"}
    choose_attention()
    model = _build(config)
    choose_convolutions(model)
    if isinstance(model, PowsmCtcModel):
        set_language_dropout(model, config.get("preprocessor_conf") or {})
    return model


def _build(config: Mapping) -> ESPnetS2TModel | ESPnetS2TCTCModel:
    if others := _not_in_table(config):
        log.info("built by ESPnet's task, which loads slowly: %s", " ".join(others))
        config = {"input_size": None, "init": None, **config}
        task = task_of_model(config.get("model"))
        return task.build_model(argparse.Namespace(**config))
    tokens = config["token_list"]
    if isinstance(tokens, str):
        with open(tokens, encoding="utf-8") as file:
            tokens = [line.rstrip() for line in file]
    frontend = _part(config, "frontend")
    specaug, normalize = _part(config, "specaug"), _part(config, "normalize")
    encoder = _part(config, "encoder", input_size=frontend.output_size())
    sizes = {
        "vocab_size": len(tokens),
        "encoder_output_size": encoder.output_size(),
    }
    # in the order of the tasks, which the random numbers of new weights follow
    if config.get("model") in CTC_ONLY_MODELS:
        size = config["promptencoder_conf"]["output_size"]
        given = {"input_size": size, "input_layer": None}
        others = {"prompt_encoder": _part(config, "promptencoder", **given)}
    else:
        decoder = _part(config, "decoder", **sizes)
        others = {"preencoder": None, "postencoder": None, "decoder": decoder}
    ctc = CTC(
        odim=len(tokens),
        encoder_output_size=encoder.output_size(),
        **config["ctc_conf"],
    )
    return _part(
        config,
        "model",
        vocab_size=len(tokens),
        frontend=frontend,
        specaug=specaug,
        normalize=normalize,
        encoder=encoder,
        ctc=ctc,
        token_list=list(tokens),
        **others,
    )


def _not_in_table(config: Mapping) -> list[str]:
    """Settings as `key=value` that only the task knows how to build."""
    others = [
        f"{key}={value}"
        for key in _CLASSES
        if (value := _choice(config, key)) not in _CLASSES[key]
        and not (value is None and key in _OPTIONAL)
    ]
    others += [
        f"{key}={config[key]}" for key in _NOT_IN_TABLE if config.get(key) is not None
    ]
    return others


def _choice(config: Mapping, key: str) -> str | None:
    if key == "model":
        return config.get(key, "espnet")  # not in old configurations
    if key in ("decoder", "promptencoder"):
        return config.get(key)
    return config[key]


def _part(config: Mapping, key: str, **given):
    """A part of the network, or None where the configuration leaves it out."""
    choice = _choice(config, key)
    if choice is None:
        return None
    module, _, name = _CLASSES[key][choice].partition(":")
    return getattr(import_module(module), name)(**given, **config[f"{key}_conf"])
