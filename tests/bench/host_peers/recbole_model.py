"""RecBole's side, run by its own Python: ``recbole_model.py FOLDER MODEL``.

The step is that of its ``Trainer``, with its own data loader, sampler and loss.
"""

from __future__ import annotations

import os
import sys
from itertools import chain, repeat

from serve import serve

FOLDER, MODEL = sys.argv[1:]
sys.argv = sys.argv[:1]  # RecBole reads the rest of the command line itself

import torch  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, init_seed  # noqa: E402

if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    config = Config(
        model=MODEL,
        dataset="gowalla",
        config_dict={
            "data_path": FOLDER,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "train_batch_size": 2048,
            "embedding_size": 64,
            "n_layers": 3,
            "reg_weight": 1e-4,
            "learning_rate": 1e-3,
            "use_gpu": False,
            "state": "ERROR",
        },
    )
    init_seed(1, reproducibility=True)
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    model = get_model(MODEL)(config, train._dataset).train()  # as its run_recbole does
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = chain.from_iterable(repeat(train))

    def run_step() -> None:
        """Do one step on the next batch."""
        batch = next(batches)
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()

    serve(run_step)
