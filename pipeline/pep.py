"""PEP (Liu et al., ICLR 2021): thresholds learned with the table say which entries stay.

The table is trained through sign(v) relu(|v| - sigmoid(s)), where s has a threshold for each entry,
as in PEP's public code for MovieLens-1M; then it is trained again, from where it started, under the
mask that was found. docs/baselines.md says what differs here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from pipeline.backward import Gradients
from pipeline.models import MODELS
from pipeline.nmf import budget, top_entries
from pipeline.optimizers import STATE, update
from pipeline.table import F32, PackedTable
from pipeline.train import Trainer


@dataclass(frozen=True)
class PepOptions:
    """How PEP searches.

    Attributes:
        start: of the thresholds s; as published, sigmoid(-15) is 3e-7.
        rate: learning rate of the thresholds. Published runs are so long that the table's own is
            enough.
        decay: weight decay on the thresholds, which draws them up towards 0, sigmoid(0) = 1/2;
            as published.
        search: the search ends at this part of the run, wherever it has come to.
    """

    start: float = -15.0
    rate: float = 0.1
    decay: float = 1e-5
    search: float = 0.5


@dataclass
class PepTrainer(Trainer):
    """Searches with thresholds, on a table of density 1; after ``fix_mask`` an ordinary trainer.

    While it searches, ``state`` holds v (``pep_v``), s (``pep_s``) and the optimizer's state of s
    too, (N d,) each, so that a checkpoint has them, and ``table`` is what the thresholds leave.

    Attributes:
        pep: options.
        initial: float32 (N d,), the values before the search.
        seed: of the dense parameters' start.
    """

    pep: PepOptions = field(default_factory=PepOptions)
    initial: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.initial = self.table.vals.copy()
        start = np.full(self.table.nnz, self.pep.start, np.float32)
        self.state |= {"pep_v": self.initial.copy(), "pep_s": start}
        for name in STATE[self.config.optimizer]:
            self.state[f"pep_s_{name}"] = np.zeros(self.table.nnz, np.float32)
        self.table.vals = soft_threshold(self.initial, start)

    @property
    def searching(self) -> bool:
        """Tell whether the mask is still open."""
        return "pep_s" in self.state

    @property
    def left(self) -> float:
        """Give the part of N d that is not 0: what the thresholds leave, and at last the mask."""
        full = self.table.num_rows * self.table.dim
        return np.count_nonzero(self.table.vals) / full

    def fix_mask(self, density: float) -> None:
        """End the search: a mask of round(density N d) entries, and all values as they began.

        Entries are ranked by their margin |v| - sigmoid(s). So those that the thresholds leave come
        first; of the others, those that fell last make up the number.
        """
        table, floor = self.table, self.config.floor
        count = budget(table.num_rows, table.dim, density, floor)
        shape = (table.num_rows, table.dim)
        margin = (np.abs(self.state["pep_v"]) - expit(self.state["pep_s"])).reshape(shape)
        mask = top_entries(margin, count, floor)
        packed = PackedTable.from_dense(self.initial.reshape(shape), mask, table.num_users)
        names = STATE[self.config.optimizer]
        self.replace_table(packed, {name: np.zeros(count, np.float32) for name in names})
        self.dense = MODELS[self.config.model].initial(table.dim, self.seed)
        self.dense_state = {
            key: {name: np.zeros_like(values) for name in names}
            for key, values in self.dense.items()
        }

    def _update_entries(self, found: Gradients) -> None:
        if not self.searching:
            super()._update_entries(found)
            return
        config, state, at = (
            self.config,
            self.state,
            slice(None) if found.index is None else found.index,
        )
        values, thresholds = state["pep_v"], state["pep_s"]
        grads, by_threshold = soft_threshold_grads(
            values[at], thresholds[at], self.table.vals[at], found.entries
        )
        # Decay moves every threshold at every step, as a dense optimizer would.
        whole = np.float32(self.pep.decay) * thresholds
        whole[at] += by_threshold
        names = STATE[config.optimizer]
        of_s = {name: state[f"pep_s_{name}"] for name in names}
        update(config.optimizer, thresholds, whole, None, of_s, self.pep.rate, self.step)
        update(config.optimizer, values, grads, found.index, state, config.learning_rate, self.step)
        self.table.vals = soft_threshold(values, thresholds)


def soft_threshold(values: F32, thresholds: F32) -> F32:
    """Give sign(v) relu(|v| - sigmoid(s)), of any one shape."""
    left: F32 = np.sign(values) * np.maximum(np.abs(values) - expit(thresholds), 0)
    return left


def soft_threshold_grads(values: F32, thresholds: F32, left: F32, grads: F32) -> tuple[F32, F32]:
    """Take gradients back through ``soft_threshold``.

    Args:
        values: v.
        thresholds: s.
        left: what ``soft_threshold`` made of them.
        grads: by what is left.

    Returns:
        Gradients by v, 1 where an entry is left, and by s, -sign(v) sigmoid'(s) there.
    """
    through = np.where(left != 0, grads, np.float32(0))
    chance = expit(thresholds)
    return through, -through * np.sign(values) * chance * (1 - chance)
