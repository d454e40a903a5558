"""Which of ESPnet's tasks reads a configuration, by the model that it names."""

from powsm.model import s2t, s2t_ctc

# trained by ESPnet's s2t_ctc task; its S2T task has the others
CTC_ONLY_MODELS = ("espnet_ctc", "powsm_ctc")


def task_of_model(model: str | None) -> type:
    """ESPnet's task class, with our models among its choices.

    Args:
        model: `model` of a training configuration; None is the default, an
            encoder-decoder.
    """
    if model in CTC_ONLY_MODELS:
        return s2t_ctc.PowsmCtcTask
    return s2t.PowsmTask
