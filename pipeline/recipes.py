"""What a host run is: one dataclass, and the recipes that the demo and the command line start from.

The learning rates and penalties of ``sparserec``, ``dense`` and ``rigl`` were selected on
validation, each from the same grid, by ``sparserec demo --tune`` on MovieLens-100K. The other
methods have them from one of these; ``sparserec reproduce`` selects all anew for each dataset and
model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pipeline.als import AlsOptions
from pipeline.models import MODELS, ModelName
from pipeline.nmf import NmfOptions
from pipeline.pep import PepOptions
from pipeline.prune import small_dim
from pipeline.table import MAX_DIM
from pipeline.train import StepConfig
from sparserec.errors import SparseRecError

Method = Literal["sparserec", "dense", "static", "set", "rigl", "dsl", "magnitude", "pep", "small"]
Start = Literal["nmf", "nmf-mask", "random"]
Sides = Literal["joint", "each"]
MAX_SEED = 2**32 - 1
"""The most that scikit-learn takes for NMF's start."""
PLAIN = AlsOptions(sweeps=0)
"""NMF's start as it is."""
VALUE_SCALES: dict[ModelName, float] = {"neumf": 0.7, "lightgcn": 1.0, "ngcf": 1.5}
"""Root mean squares of starts from factors that suit a model, where ``Recipe``'s, MF's, does not.
From smaller values the first steps of training undo the start, on a host as on a device. LightGCN's
propagation shrinks what it adds up; NGCF's rows stand beside three layers' outputs of length 1
(docs/method.md, docs/findings.md)."""


@dataclass(frozen=True)
class Recipe:
    """One host run.

    Attributes:
        method: ``sparserec`` or a baseline: ``dense``, every entry active; ``static``, a random
            mask that stays; ``set``, ``rigl`` and ``dsl``, masks that change by the rules of
            these papers; ``magnitude``, a dense table pruned as it trains; ``pep``, a dense
            table whose thresholds are learned; ``small``, a dense table of fewer columns.
            docs/baselines.md
        step: what one step does.
        start: ``nmf``: mask and values, refined by ``als``; ``nmf-mask``: the mask, with random
            values; ``random``.
        dim: d.
        density: active entries / (N d), of the table that is kept.
        start_density: of the table that training begins with; the weakest entries go, between two
            mask updates, until half of the run is over. 0: ``density``.
        epochs: passes over the training interactions; the best one on validation is kept.
        patience: epochs without a better validation Recall@20 before training ends; 0: never.
        ema: decay of the moving average of the weights over steps that is judged and kept; 0: the
            weights themselves are.
        learning_rate_least: the part of the learning rate that a cosine takes it to by the end of
            the run; 1: it stays.
        valid_users: users drawn for validation where there are more; 0 takes all.
        window: dT, steps between two mask updates (``set``: an epoch); 0 keeps the mask.
        exchange_fraction: part of the entries in question exchanged at first.
        exchange_stop: no exchange after this part of the run.
        exchange_least: what the fraction falls to.
        nmf: how the interactions are factored.
        als: how that start is refined, where it is (``refines``).
        pep: how PEP searches.
        rescale: power of the row norm that NMF entries are divided by before ranking.
        sides: whether users and items compete for the entries of the NMF start (``joint``), or get
            their rows' share each (``each``).
        value_scale: root mean square of the starting values; see ``suited``.
        seed: of the start and of every draw.
        refit: train again, from the same start, on train and validation for the epochs that
            validation chose: comparable with published figures, which train on all of train.
    """

    method: Method
    step: StepConfig
    start: Start = "nmf"
    dim: int = 64
    density: float = 0.1
    start_density: float = 0.0
    epochs: int = 15
    patience: int = 0
    ema: float = 0.0
    learning_rate_least: float = 1.0
    valid_users: int = 10_000
    window: int = 60
    exchange_fraction: float = 0.2
    exchange_stop: float = 0.75
    exchange_least: float = 0.0
    nmf: NmfOptions = field(default_factory=NmfOptions)
    als: AlsOptions = field(default_factory=AlsOptions)
    pep: PepOptions = field(default_factory=PepOptions)
    rescale: float = 0.5
    sides: Sides = "joint"
    value_scale: float = 0.25
    seed: int = 1
    refit: bool = False

    @property
    def width(self) -> int:
        """Columns of the table: d, or d' of ``small``."""
        return small_dim(self.dim, self.density) if self.method == "small" else self.dim

    @property
    def first_density(self) -> float:
        """Active entries / (N d) of the table that training begins with."""
        if self.method in ("magnitude", "pep"):
            return 1.0
        return self.start_density or self.density

    @property
    def shrinks(self) -> bool:
        """Whether the table begins over its budget."""
        return self.first_density > self.density

    @property
    def starts_from_factors(self) -> bool:
        """Whether the table is made of the interactions' factors."""
        return self.start != "random" and self.method != "small"

    @property
    def refines(self) -> bool:
        """Whether least squares refine the start."""
        return self.start == "nmf" and self.als.sweeps > 0

    @property
    def halves(self) -> int:
        """How often the same factors stand in a row: NeuMF's two halves get them each."""
        return 2 if self.step.model == "neumf" else 1

    def check(self) -> None:
        """Refuse, before any work, what cannot be trained.

        Raises:
            SparseRecError: a number is out of its range, options contradict one another, or the
                model cannot be as wide as this.
        """
        self._check_numbers()
        self._check_density()
        if self.method in ("magnitude", "pep") and (self.start != "random" or self.window == 0):
            raise SparseRecError(
                f"method {self.method} prunes a whole table that starts at random, every window;"
                f" the start is {self.start} and the window {self.window}",
                "leave both out, or choose the method sparserec",
            )
        if self.method in ("dense", "static", "small") and self.window > 0:
            raise SparseRecError(
                f"method {self.method} keeps its mask, and the window is {self.window}",
                "leave out the window, or choose a method that updates its mask",
            )
        if self.method in ("set", "rigl", "dsl"):
            if self.step.grow not in ("set", "rigl"):
                raise SparseRecError(
                    f"method {self.method} has a rule of its own, and grow is {self.step.grow}",
                    "leave out grow, or choose the method sparserec",
                )
            if self.window == 0:
                raise SparseRecError(
                    f"method {self.method} updates its mask, and the window is 0",
                    "leave out the window, or choose the method static",
                )
        if self.method == "pep" and self.pep.search >= 1:
            raise SparseRecError(
                f"pep_search is {self.pep.search:g}: its mask would be fixed after the last step,"
                " and nothing trained under it",
                "give 0 or more and less than 1",
            )
        if (self.ema or self.learning_rate_least < 1) and self.method == "pep":
            raise SparseRecError(
                "method pep starts anew once its thresholds have chosen the mask: an average of its"
                " weights would mix the two, and a learning rate that falls would start low",
                "leave out ema and learning_rate_least",
            )
        if self.step.backward == "literal" and self.window == 0:
            raise SparseRecError(
                "the literal backward trains the rows sampled in a window, and the window is 0",
                "give a window above 0, or the packed backward",
            )
        model = MODELS[self.step.model]
        if model.initial(self.width, self.seed) and model.GRAPH == "linear":
            raise SparseRecError(
                f"model {self.step.model}: GRAPH is linear, and there are dense parameters",
                'give it GRAPH = "layers": a linear graph keeps no tape for them',
            )

    def _check_density(self) -> None:
        if not 0 < self.density <= 1:
            raise SparseRecError(f"density is {self.density}", "give more than 0 and at most 1")
        if self.start_density and not self.density <= self.start_density <= 1:
            raise SparseRecError(
                f"start_density is {self.start_density}, and the density is {self.density:g}",
                "give at least the density and at most 1, or 0 for the density",
            )
        if self.start_density and (self.method != "sparserec" or self.window == 0):
            raise SparseRecError(
                f"start_density is {self.start_density:g}, and a table shrinks between mask updates"
                f" of sparserec; the method is {self.method} and the window {self.window}",
                "leave it out, or choose the method sparserec and a window above 0",
            )
        if self.method == "dense" and self.density != 1:
            raise SparseRecError(
                f"method dense trains every entry, and the density is {self.density:g}",
                "leave out the density, or choose the method static",
            )

    def _check_numbers(self) -> None:
        for name, value, least, most in (
            ("dim", self.dim, 1, MAX_DIM),
            ("epochs", self.epochs, 1, math.inf),
            ("seed", self.seed, 0, MAX_SEED),
            ("window", self.window, 0, math.inf),
            ("batch_size", self.step.batch_size, 1, math.inf),
            ("learning_rate_least", self.learning_rate_least, 0, 1),
        ):
            if not least <= value <= most:
                to = "or more" if most == math.inf else f"to {most}"
                raise SparseRecError(f"{name} is {value}", f"give {least} {to}")
        if not 0 <= self.ema < 1:
            raise SparseRecError(f"ema is {self.ema}", "give 0 or more and less than 1")
        parts = {"nmf_": self.nmf, "als_": self.als, "pep_": self.pep}
        for prefix, part in (("", self), ("", self.step), *parts.items()):
            for name, value in vars(part).items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise SparseRecError(f"{prefix}{name} is {value}", "give a finite number")

    def as_dict(self) -> dict[str, Any]:
        """Give what ``from_dict`` reads, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Read what ``as_dict`` wrote.

        Raises:
            TypeError: a field is missing or unknown.
        """
        # Runs from before there was a refined start had none, and those from before there was a
        # power of the degrees took their roots, where they factored anything.
        power = NmfOptions.power if values["start"] == "random" else 0.5
        nmf = {"power": power} | values["nmf"]
        values = {"als": asdict(PLAIN)} | values | {"nmf": nmf}
        parts = {"step": StepConfig, "nmf": NmfOptions, "als": AlsOptions, "pep": PepOptions}
        return cls(**values | {name: made(**values[name]) for name, made in parts.items()})


def suited(recipe: Recipe) -> Recipe:
    """Scale a start from factors to what suits the recipe's model."""
    if not recipe.starts_from_factors:
        return recipe
    return replace(recipe, value_scale=VALUE_SCALES.get(recipe.step.model, recipe.value_scale))


def sparserec() -> Recipe:
    """SparseRec: NMF start, cumulative-gradient regrowth, dense gradients for sampled rows."""
    return Recipe("sparserec", StepConfig(learning_rate=0.003, l2=0.1))


def dense() -> Recipe:
    """Train every entry of the table, from small random values: what sparse tables are held to."""
    step = StepConfig(learning_rate=0.01, l2=0.01)
    plain = replace(sparserec(), start="random", als=PLAIN, window=0, value_scale=0.1)
    return replace(plain, method="dense", step=step, density=1.0)


def static() -> Recipe:
    """Train under a random mask that stays as it is."""
    step = StepConfig(learning_rate=0.01, l2=0.1)
    return replace(dense(), method="static", step=step, density=sparserec().density)


def set_() -> Recipe:
    """SET (Mocanu et al., 2018): after each epoch drop the weakest entries, grow at random."""
    step = replace(static().step, grow="set")
    return replace(static(), method="set", step=step, window=1, exchange_fraction=0.3)


def rigl() -> Recipe:
    """RigL (Evci et al., 2020): drop the weakest, grow by the dense gradient of one batch.

    The window and fraction are SparseRec's: the published 100 and 0.3 do worse on validation in
    the few steps of the demo (Recall@20 .085 against .128).
    """
    step = replace(static().step, grow="rigl", importance="all", l2=0.03)
    same = sparserec()
    window, fraction = same.window, same.exchange_fraction
    return replace(static(), method="rigl", step=step, window=window, exchange_fraction=fraction)


def dsl() -> Recipe:
    """DSL (Wang et al., 2024): RigL's rule on a schedule of its own, to the end of the run.

    The window is the others': the published 3,000 steps are more than a whole run here has.
    """
    return replace(
        rigl(), method="dsl", exchange_fraction=0.5, exchange_stop=1.0, exchange_least=0.005
    )


def magnitude() -> Recipe:
    """Prune a dense table as it trains (Zhu and Gupta, 2017), then fine-tune what is left."""
    return replace(static(), method="magnitude", step=dense().step, window=60)


def pep() -> Recipe:
    """PEP (Liu et al., 2021): learn a threshold for each entry, then train what they leave."""
    return replace(magnitude(), method="pep")


def small() -> Recipe:
    """Train a dense table with fewer columns: what a practitioner would do first."""
    return replace(dense(), method="small", density=static().density)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "sparserec": sparserec,
    "dense": dense,
    "static": static,
    "set": set_,
    "rigl": rigl,
    "dsl": dsl,
    "magnitude": magnitude,
    "pep": pep,
    "small": small,
}
