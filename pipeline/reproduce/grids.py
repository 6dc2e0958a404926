"""Which cells an experiment has, the most informative first.

Seeds are outermost, so that a grid that was cut short has every setting once; all methods of a
setting come before the next setting; models that train fast come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from pipeline.data.datasets import Protocol
from pipeline.models import ModelName
from pipeline.prune import small_dim
from pipeline.recipes import RECIPES, Method
from pipeline.reproduce.cells import (
    LEARNING_RATES,
    PLAIN_SCALE,
    TUNE_DENSITY,
    Cell,
    Experiment,
    Override,
    Tuned,
    budget_of,
    refined_scale,
)

SEEDS = (1, 2, 3)
DATASETS = ("gowalla", "yelp2018")
MODELS: tuple[ModelName, ...] = ("lightgcn", "mf", "neumf", "ngcf")
PAPER_MODELS: tuple[ModelName, ...] = ("neumf", "ngcf", "lightgcn")
PAPER_DENSITIES = (0.1, 0.05, 0.2)
HIGH_DENSITIES = (0.5, 0.6, 0.9, 0.95)
DOMAINS = ("lastfm", "ml-1m", "amazon-beauty")
TWO_MODELS: tuple[ModelName, ...] = ("mf", "lightgcn")
RIVALS: tuple[str, ...] = tuple(name for name in RECIPES if name not in ("sparserec", "dense"))
"""Baselines that meet SparseRec's budget."""


def grid() -> list[Cell]:
    """Give the paper's grid and MF, LightGCN under the per-user protocol, and high densities."""
    cells: list[Cell] = []
    for seed in SEEDS:
        for model, density, dataset in product(MODELS, PAPER_DENSITIES, DATASETS):
            cells += _setting("grid", dataset, "lightgcn", model, density, seed)
        for density, dataset in product(PAPER_DENSITIES, DATASETS):
            cells += _setting("grid", dataset, "per-user", "lightgcn", density, seed)
        for density, dataset in product(HIGH_DENSITIES, DATASETS):
            cells += _setting("grid", dataset, "lightgcn", "lightgcn", density, seed)
    return list(dict.fromkeys(cells))


def domains() -> list[Cell]:
    """Give all methods on data of other domains at 10% density."""
    cells: list[Cell] = []
    for seed, model, dataset in product(SEEDS, TWO_MODELS, DOMAINS):
        cells += _setting("domains", dataset, "lightgcn", model, 0.1, seed)
    return cells


WIDTHS = (64, 128, 256, 32)


def width() -> list[Cell]:
    """Give tables of as many active entries, 6.4 a row, in more or fewer columns.

    Settings are those tuned at 64 columns: what a wider table gains is not a matter of tuning.
    """
    methods: tuple[Method, ...] = ("sparserec", "static")
    return [
        Cell(
            "width",
            dataset,
            "lightgcn",
            model,
            method,
            TUNE_DENSITY * 64 / dim,
            seed,
            overrides=(("dim", dim),),
        )
        for seed, dataset, model, dim, method in product(
            SEEDS, ("lastfm", "gowalla"), TWO_MODELS, WIDTHS, methods
        )
    ]


RANDOM_VALUES: Override = ("value_scale", 0.1)
"""As the baselines' are."""
ABLATION: dict[str, tuple[tuple[Override, ...], str]] = {
    "as it is": ((), ""),
    "start: random mask and values": ((("start", "random"), RANDOM_VALUES), "rigl"),
    "start: NMF mask, random values": ((("start", "nmf-mask"), RANDOM_VALUES), ""),
    "growth: instant gradient": ((("step.grow", "instant"),), ""),
    "growth: sum of magnitudes": ((("step.grow", "magnitude"),), ""),
    "growth: none": ((("window", 0),), ""),
    "backward: literal": ((("step.backward", "literal"),), ""),
    "rows: uniform": ((("step.importance", "uniform"),), ""),
    "rows: all (full backward)": ((("step.importance", "all"),), ""),
    "NMF: no normalisation": ((("nmf.normalisation", "none"),), ""),
    "NMF: roots of degrees": ((("nmf.power", 0.5),), ""),
    "NMF: PPMI": ((("nmf.normalisation", "ppmi"),), ""),
    "NMF: multiplicative updates": ((("nmf.solver", "mu"),), ""),
    "NMF: random start": ((("nmf.start", "random"),), ""),
    "ALS: none": ((("als.sweeps", 0), ("value_scale", PLAIN_SCALE)), ""),
    "ALS: of NMF's mask": ((("als.exchange", 0.0),), ""),
    "rescale: none": ((("rescale", 0.0),), ""),
    "rescale: full": ((("rescale", 1.0),), ""),
    "floor: none": ((("step.floor", 0),), ""),
    "floor: 4": ((("step.floor", 4),), ""),
}
"""Arms by name: overrides of SparseRec's recipe, and whose tuned settings it takes. A random start
takes RigL's, which were tuned for one."""
SCALES = {"values: a third": 1 / 3, "values: three times": 3.0}
"""Arms by name: the scale of the start's values, times the model's own."""


def arms(model: str) -> dict[str, tuple[tuple[Override, ...], str]]:
    """Give all arms of a model."""
    own = refined_scale(model)
    scaled = {arm: ((("value_scale", times * own),), "") for arm, times in SCALES.items()}
    return ABLATION | scaled


STUDIED = ("lastfm", "gowalla")
"""What choices and hyperparameters are studied on: small, where a run goes to its end in half a
minute and mask updates have the time to matter, and large."""


def ablation() -> list[Cell]:
    """Give SparseRec with one choice changed, on two datasets and models at 10% density."""
    return [
        Cell("ablation", dataset, "lightgcn", model, "sparserec", 0.1, seed, arm, *changed)
        for dataset, seed, model in product(STUDIED, SEEDS, TWO_MODELS)
        for arm, changed in arms(model).items()
    ]


SENSITIVITY: dict[str, tuple[float, ...]] = {
    "window": (20, 60, 200, 600),
    "exchange_fraction": (0.05, 0.1, 0.2, 0.4),
    "exchange_stop": (0.5, 0.75, 1.0),
    "step.sampled_fraction": (0.1, 0.25, 0.5, 1.0),
    "step.floor": (0, 1, 2, 4),
    "rescale": (0.0, 0.25, 0.5, 0.75, 1.0),
    "value_scale": (0.1, 0.2, 0.4, 0.7, 1.0, 2.0),
    "nmf.power": (0.0, 0.15, 0.3, 0.4, 0.5),
    "nmf.iterations": (3, 10, 30, 100),
    "als.sweeps": (0, 3, 6, 12, 24),
    "als.exchange": (0.0, 0.1, 0.3, 0.5),
    "als.zeros": (5.0, 10.0, 20.0, 40.0),
    "als.penalty": (0.05, 0.1, 0.15, 0.3),
}
"""Values of each hyperparameter that SparseRec adds, one changed at a time."""


def sensitivity() -> list[Cell]:
    """Give SparseRec with one hyperparameter changed, on two datasets and models, one seed."""
    return [
        Cell(
            "sensitivity",
            dataset,
            "lightgcn",
            model,
            "sparserec",
            0.1,
            SEEDS[0],
            f"{name}={value:g}",
            ((name, value),),
        )
        for dataset, model in product(STUDIED, TWO_MODELS)
        for name, values in SENSITIVITY.items()
        for value in values
    ]


def _but(base: tuple[Override, ...], *changes: Override) -> tuple[Override, ...]:
    """Give overrides with some changed or added, each field once."""
    return tuple((dict(base) | dict(changes)).items())


LONG: tuple[Override, ...] = (("refit", True), ("step.learning_rate", 0.01))
LONG_MF = _but(
    LONG,
    ("ema", 0.999),
    ("step.l2", 0.1),
    ("step.batch_size", 8192),
    ("epochs", 80),
    ("patience", 25),
)
DENSE_MF = _but(LONG_MF, ("epochs", 60), ("patience", 8))
SPARSE_MF = _but(LONG_MF, ("window", 880))
"""An update of the mask every tenth epoch: what it grows has the time to be worth something."""
BPR_LIGHTGCN = _but(
    LONG,
    ("ema", 0.999),
    ("step.loss", "bpr-shared"),
    ("step.l2", 0.0001),
    ("epochs", 130),
    ("patience", 0),
)
FAST_LIGHTGCN = _but(
    LONG,
    ("step.learning_rate", 0.02),
    ("learning_rate_least", 0.02),
    ("step.negatives", 2048),
    ("patience", 0),
)
"""Sampled softmax over many negatives has whole tables in 24 epochs where BPR has them in 120, and
takes them further. A rate that falls keeps what is reached."""
WHOLE_LIGHTGCN = _but(FAST_LIGHTGCN, ("ema", 0.995), ("step.l2", 0.03), ("epochs", 60))
SPARSE_LIGHTGCN = _but(
    FAST_LIGHTGCN,
    ("step.learning_rate", 0.1),
    ("value_scale", 0.3),
    ("ema", 0.99),
    ("step.l2", 0.04),
    ("window", 88),
    ("exchange_fraction", 0.15),
    ("exchange_least", 0.03),
    ("exchange_stop", 0.8),
    ("epochs", 50),
)
"""An update of the mask every other epoch. A tenth of the entries takes larger steps than all: in
one step a row's vector moves by the sum over its active entries and its neighbours'."""
SHRINKING_LIGHTGCN = _but(
    SPARSE_LIGHTGCN,
    ("start_density", 0.5),
    ("step.learning_rate", 0.04),
    ("value_scale", 0.1),
)
"""A table that begins with half of all entries, and is pruned to a tenth while its mask changes."""
PATIENT_MF = _but(
    SPARSE_MF,
    ("exchange_fraction", 0.3),
    ("exchange_least", 0.1),
    ("exchange_stop", 0.85),
    ("epochs", 200),
    ("patience", 0),
)
"""Recall rises while the mask changes, here for 160 epochs, and once more when it stays."""
WIDE: tuple[Override, ...] = (("dim", 256), ("nmf.solver", "mu"))
WIDE_MF = _but(SPARSE_MF, *WIDE, ("nmf.power", 0.5), ("value_scale", 1.4), ("epochs", 40))
WIDE_LIGHTGCN = _but(
    LONG,
    *WIDE,
    ("ema", 0.995),
    ("step.l2", 0.01),
    ("window", 352),
    ("exchange_fraction", 0.3),
    ("exchange_least", 0.1),
    ("exchange_stop", 0.8),
    ("epochs", 60),
    ("patience", 0),
)
"""Wide tables want fewer updates; against more negatives they come no further."""
SHRINKING_128 = _but(
    SHRINKING_LIGHTGCN,
    ("dim", 128),
    ("nmf.solver", "mu"),
    ("start_density", 0.25),
    ("step.l2", 0.03),
)
"""As many entries as ``SHRINKING_LIGHTGCN`` has, first and last, over more columns."""
WHOLE_128 = _but(WHOLE_LIGHTGCN, ("dim", 128))
HALF_OF_128 = _but(SHRINKING_128, ("start_density", 0.5))
"""A tenth of 128 columns, and the dense table as wide that it is held to."""
NARROW, PRUNED = "10% of 64 columns", "gradual pruning to 10%"
TO_THE_END: tuple[tuple[str, ModelName, Method, float, str, tuple[Override, ...]], ...] = (
    ("gowalla", "mf", "dense", 1.0, "dense", DENSE_MF),
    ("gowalla", "mf", "sparserec", 0.1, NARROW, SPARSE_MF),
    ("gowalla", "mf", "sparserec", 0.1, f"{NARROW} with one mask", _but(SPARSE_MF, ("window", 0))),
    (
        "gowalla",
        "mf",
        "sparserec",
        0.1,
        f"{NARROW} by instant gradient",
        _but(SPARSE_MF, ("step.grow", "instant")),
    ),
    ("gowalla", "mf", "sparserec", 0.1, f"{NARROW} in 200 epochs", PATIENT_MF),
    ("gowalla", "mf", "magnitude", 0.1, PRUNED, LONG_MF),
    ("gowalla", "mf", "sparserec", 0.025, "2.5% of 256 columns", WIDE_MF),
    ("gowalla", "lightgcn", "dense", 1.0, "dense", WHOLE_LIGHTGCN),
    ("gowalla", "lightgcn", "sparserec", 0.1, NARROW, SPARSE_LIGHTGCN),
    ("gowalla", "lightgcn", "sparserec", 0.1, f"{NARROW} from half of all", SHRINKING_LIGHTGCN),
    (
        "gowalla",
        "lightgcn",
        "sparserec",
        0.05,
        "5% of 128 columns from a quarter of all",
        SHRINKING_128,
    ),
    ("gowalla", "lightgcn", "dense", 1.0, "dense over 128 columns", WHOLE_128),
    (
        "gowalla",
        "lightgcn",
        "sparserec",
        0.1,
        "10% of 128 columns from half of all",
        HALF_OF_128,
    ),
    ("gowalla", "lightgcn", "magnitude", 0.1, PRUNED, WHOLE_LIGHTGCN),
    ("gowalla", "lightgcn", "sparserec", 0.025, "2.5% of 256 columns", WIDE_LIGHTGCN),
    ("yelp2018", "lightgcn", "dense", 1.0, "dense", BPR_LIGHTGCN),
    ("yelp2018", "lightgcn", "sparserec", 0.1, NARROW, _but(SPARSE_LIGHTGCN, ("window", 136))),
    ("yelp2018", "mf", "dense", 1.0, "dense", DENSE_MF),
    (
        "yelp2018",
        "mf",
        "sparserec",
        0.1,
        NARROW,
        _but(SPARSE_MF, ("window", 1360), ("patience", 0)),
    ),
)
"""Dataset, model, method, density, variant and what makes it so."""


def long() -> list[Cell]:
    """Give tables trained to their end and, for as many epochs, anew on all of train.

    So were published figures made. What the grid compares has a smaller budget, which favours what
    starts from factors. Each cell has settings of its own, found on validation by hand.
    """
    return [
        Cell("long", dataset, "lightgcn", model, method, density, seed, variant, overrides)
        for seed in SEEDS
        for dataset, model, method, density, variant, overrides in TO_THE_END
    ]


def tuning(tuned: Tuned) -> list[Cell]:
    """Give the runs that select a method's settings: the same number for each method."""
    dataset, protocol, model, method = tuned
    density = 1.0 if method == "dense" else TUNE_DENSITY
    base = Cell("tune", dataset, protocol, model, method, density, SEEDS[0])  # type: ignore[arg-type]
    return [
        replace(
            base,
            variant=f"lr={rate:g},l2={penalty:g}",
            overrides=(("step.learning_rate", rate), ("step.l2", penalty)),
        )
        for rate, penalty in product(LEARNING_RATES, budget_of(dataset, model).penalties)
    ]


def needs(cells: list[Cell]) -> list[Cell]:
    """Give the tuning runs that ``cells`` depend on, in the order in which they come up."""
    wanted = dict.fromkeys(cell.tuned_by for cell in cells if not cell.is_tuned)
    return [run for tuned in wanted for run in tuning(tuned)]


def tuned_cells() -> list[Cell]:
    """Give the tuning runs of all experiments."""
    return list(dict.fromkeys(needs([cell for of in GRIDS.values() for cell in of()])))


GRIDS = {
    "grid": grid,
    "ablation": ablation,
    "sensitivity": sensitivity,
    "domains": domains,
    "width": width,
    "long": long,
}


def _setting(
    experiment: Experiment,
    dataset: str,
    protocol: Protocol,
    model: ModelName,
    density: float,
    seed: int,
) -> Iterator[Cell]:
    """Give all methods at one density, and the dense table that they are held to."""
    for method in ("sparserec", "dense", *RIVALS):
        if method == "small" and model == "neumf" and small_dim(64, density) % 8:
            continue  # its perceptron halves the columns three times
        own = 1.0 if method == "dense" else density
        yield Cell(experiment, dataset, protocol, model, _method(method), own, seed)


def _method(name: str) -> Method:
    return name  # type: ignore[return-value]
