"""How utterances become batches and batches become updates."""

from dataclasses import dataclass, replace

from powsm.errors import PowsmError


@dataclass(frozen=True)
class BatchOptions:
    """How utterances become batches and batches become updates.

    Args:
        batch_seconds: most seconds of audio, padding included, in one batch, or `auto`:
            `update_seconds` divided among the batches of an update, whatever the GPU's
            memory is; batches of lengths that it does not hold are taken in parts, as
            many as a trial finds.
        update_batches: batches per optimiser update, over all ranks together: the
            effective batch does not depend on how many GPUs there are; a number of
            ranks that does not divide it cuts the update finer. Four or more
            make updates of equally many utterances; an update of one batch holds as
            many as its length allows, so that short ones weigh less over a pass.
        update_seconds: most seconds of an update, where batch_seconds is `auto`.
        language_temperature: T of sampling languages by (their hours)^(1/T): 1 takes
            every utterance once a pass, 2 the square root of the hours; a pass keeps
            its hours.
        window_share: share of the utterances that get silence before and after, up
            to a random length within `window_s`, counted as real frames; stock
            ESPnet inference pads every clip to the window.
        window_s: that window in seconds.
        shards_together: a batch takes its utterances from at most so many shards,
            drawn anew for every pass; 0 is from all. Few make a batch of one corpus.
        seed: of the order; with the pass it fixes every batch.
    """

    batch_seconds: float | str = 100.0
    update_batches: int = 1
    update_seconds: float | None = None
    language_temperature: float = 1.0
    window_share: float = 0.0
    window_s: float = 20.0
    shards_together: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.batch_seconds, str) and self.batch_seconds != "auto":
            raise PowsmError(
                f"batch_seconds is {self.batch_seconds!r}, expected a number or auto"
            )
        if (self.batch_seconds == "auto") != (self.update_seconds is not None):
            raise PowsmError(
                f"batch_seconds is {self.batch_seconds}, update_seconds "
                f"{self.update_seconds}: auto needs it, a number excludes it"
            )
        if not self.language_temperature > 0:
            raise PowsmError(
                f"language_temperature is {self.language_temperature}, expected more "
                "than 0: 1 leaves the languages as they are"
            )
        for name, value, is_right, expected in (
            (
                "update_batches",
                self.update_batches,
                self.update_batches >= 1,
                "1 or more",
            ),
            ("window_share", self.window_share, 0 <= self.window_share <= 1, "0 to 1"),
            ("window_s", self.window_s, self.window_s >= 0, "0 or more"),
            (
                "shards_together",
                self.shards_together,
                self.shards_together >= 0,
                "0 or more",
            ),
        ):
            if not is_right:
                raise PowsmError(f"{name} is {value}, expected {expected}")
        for name in ("batch_seconds", "update_seconds"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not value > 0:
                raise PowsmError(f"{name} is {value}, expected more than 0")

    def shared_by(self, n_ranks: int) -> "BatchOptions":
        """These options, with an update in as many batches as ranks can share.

        As they are where `update_batches` is a multiple of `n_ranks`; otherwise the
        same seconds of an update in more, and shorter, batches. `auto` becomes seconds.
        """
        n_batches = -(-self.update_batches // n_ranks) * n_ranks
        seconds = self.update_seconds
        if seconds is None:
            if n_batches == self.update_batches:
                return self
            seconds = self.batch_seconds * self.update_batches
        return replace(
            self,
            batch_seconds=seconds / n_batches,
            update_batches=n_batches,
            update_seconds=None,
        )
