"""What is noted of a run's epochs, and how the best of them is found again."""

from __future__ import annotations

History = list[dict[str, float]]
"""Per epoch: ``epoch``, from 1; ``loss``, the mean of its steps; ``recall@20`` and ``ndcg@20`` on
validation; ``exchanged`` entries so far; of PEP ``left``, the density it has come to. A start from
factors comes first, as epoch 0 without a loss."""


def epochs_done(history: History) -> int:
    """Count the epochs of training in a history, which may begin with the start."""
    return int(history[-1]["epoch"]) if history else 0


def trained(history: History) -> History:
    """Give the epochs of training: all but the start."""
    return [entry for entry in history if entry["epoch"] > 0]


def epoch_of(history: History, epoch: int) -> dict[str, float]:
    """Give an epoch's entry.

    Raises:
        LookupError: there is none.
    """
    for entry in history:
        if entry["epoch"] == epoch:
            return entry
    raise LookupError(f"no epoch {epoch} in the history")


def best_trained(history: History, best_epoch: int) -> dict[str, float]:
    """Give the best epoch of training, by which settings are selected.

    It is the best epoch itself unless that is the start, which does not depend on the settings.
    """
    if best_epoch > 0:
        return epoch_of(history, best_epoch)
    return max(trained(history), key=lambda entry: entry["recall@20"])
