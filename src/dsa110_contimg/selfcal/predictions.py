"""Predictions that are remembered: only what changed of a sky model is predicted anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary, ref

from dsa110_contimg.array_types import Int, Vis
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities, SkyVisibilities

__all__ = ["Predictions"]

#: A model is predicted anew if more than this fraction of its components changed, or if its visibilities
#: were changed so often: each time adds the rounding of single precision.
MOST_CHANGED, MOST_GENERATIONS = 0.7, 8


@dataclass(eq=False)
class _OfModel:
    """Visibilities of a model by block, and how they are made: from those of another model, or anew.

    The other model is not kept alive for it.
    """

    near: ref[SkyVisibilities] | None = None
    change: SkyVisibilities | None = None
    generation: int = 0
    blocks: dict[int, Vis] = field(default_factory=dict)


class Predictions:
    """Visibilities of models by block, as long as the models live; they never change."""

    def __init__(self) -> None:
        self._of_model: WeakKeyDictionary[ModelVisibilities, _OfModel] = WeakKeyDictionary()

    def models(self) -> list[ModelVisibilities]:
        """Return the models of which anything is known."""
        return list(self._of_model)

    def of_rows(self, rows_of: Callable[[int], Int]) -> Predictions:
        """Return what is known of some rows of each block, by its number; what is learnt later is apart."""
        part = Predictions()
        for model, known in self._of_model.items():
            blocks = {number: vis[rows_of(number)] for number, vis in known.blocks.items()}
            part._of_model[model] = replace(known, blocks=blocks)
        return part

    def get(
        self,
        number: int,
        together: Sequence[int],
        model: ModelVisibilities,
        predict: Callable[[Sequence[int], ModelVisibilities], Sequence[Vis]],
    ) -> Vis:
        """Return the visibilities of a model for a block, from what is known if most of it is.

        Parameters
        ----------
        number : int
            Which block.
        together : sequence of int
            Blocks that are best predicted together, this one among them.
        model : ModelVisibilities
            The model.
        predict : callable
            Predicts a model for some of them.

        Returns
        -------
        ndarray of complex64, shape (nrow, nchan)
            Not to be written to.
        """
        if model not in self._of_model:
            self._of_model[model] = self._begun(model)
        known = self._of_model[model]
        if number not in known.blocks:
            near = None if known.near is None else self._of_model.get(known.near() or model)
            those: dict[int, Vis] = {} if near is None or known.change is None else near.blocks
            wanted = [k for k in together if k not in known.blocks and (k in those) == (number in those)]
            if known.change is not None and number in those:
                for k, change in zip(wanted, predict(wanted, known.change), strict=True):
                    known.blocks[k] = those[k] + change
            else:
                known.blocks.update(zip(wanted, predict(wanted, model), strict=True))
        return known.blocks[number]

    def _begun(self, model: ModelVisibilities) -> _OfModel:
        """Begin the predictions of a model: by what changed against the nearest one that is known."""
        best = _OfModel()
        if not isinstance(model, SkyVisibilities):
            return best
        fewest = MOST_CHANGED * len(model.sky)
        for other, known in self._of_model.items():
            if isinstance(other, SkyVisibilities) and known.generation < MOST_GENERATIONS:
                change = model.less(other)
                if change is not None and len(change.sky) < fewest:
                    best, fewest = _OfModel(ref(other), change, known.generation + 1), len(change.sky)
        return best
