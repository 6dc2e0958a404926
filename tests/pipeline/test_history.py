import pytest

from pipeline.history import best_trained, epoch_of, epochs_done

START = {"epoch": 0, "recall@20": 0.5}
TRAINED = [{"epoch": 1, "recall@20": 0.3}, {"epoch": 2, "recall@20": 0.4}]


@pytest.mark.parametrize("before", [[], [START]])
def test_epochs_are_found_by_their_numbers(before: list[dict[str, float]]) -> None:
    history = before + TRAINED
    assert epochs_done(history) == 2
    assert epochs_done(before) == 0
    assert epoch_of(history, 1)["recall@20"] == 0.3
    with pytest.raises(LookupError, match="no epoch 3"):
        epoch_of(history, 3)


def test_settings_are_judged_by_epochs_of_training() -> None:
    assert best_trained([START, *TRAINED], 0)["epoch"] == 2
    # Of a table that is pruned the best epoch need not be the one with the highest recall.
    assert best_trained(TRAINED, 1)["epoch"] == 1
