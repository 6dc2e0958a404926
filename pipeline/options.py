"""The flags of ``sparserec train`` that are fields of a recipe: one line each, no heavy import.

A test holds them to the dataclasses: every field has its flag, with its choices and its default
(SparseRec's; a baseline's own are in ``pipeline.recipes``), but for how values are stored, which an
export sets for a device.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from pipeline.recipes import Recipe

TABLE, TRAINING, MASK = "Table and start", "Training", "Mask updates and sampled backward"
PEP = "PEP (--method pep)"


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: of the field, of the recipe or its step; ``nmf_...``, ``als_...``
            and ``pep_...`` of those parts.
        kind: its type.
        default: SparseRec's.
        panel: of the help page.
        help: one line.
        least, most: of a number.
    """

    name: str
    kind: Any
    default: Any
    panel: str
    help: str
    least: float | None = None
    most: float | None = None

    def parameter(self) -> inspect.Parameter:
        """Make the parameter that typer reads; None stands for the method's own default."""
        option = typer.Option(
            None,
            help=self.help,
            rich_help_panel=self.panel,
            show_default=str(self.default),
            min=self.least,
            max=self.most,
        )
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.name, kind, default=option, annotation=self.kind | None)


FLAGS = (
    Flag("density", float, 0.1, TABLE, "Active entries / (rows * dim).", 0.001, 1.0),
    Flag("start_density", float, 0.0, TABLE,
         "Of the table at first; its weakest entries go until half of the run is over."
         " 0: the density.", 0.0, 1.0),
    Flag("dim", int, 64, TABLE, "Columns of the table.", 1, 256),
    Flag("floor", int, 2, TABLE, "Least active entries of a row.", 0, 256),
    Flag("sides", Literal["joint", "each"], "joint", TABLE,
         "Users and items compete for the entries, or each get their rows' share."),
    Flag("start", Literal["nmf", "nmf-mask", "random"], "nmf", TABLE,
         "NMF's mask and values, its mask with random values, or both random."),
    Flag("value_scale", float, 0.25, TABLE,
         "Root mean square of the starting values; from NMF neumf's 0.7, lightgcn's 1, ngcf's 1.5.",
         0.0),
    Flag("rescale", float, 0.5, TABLE,
         "Power of a row's norm that its NMF entries are divided by before ranking.", 0.0),
    Flag("nmf_normalisation", Literal["none", "degree", "ppmi"], "degree", TABLE,
         "Of the matrix that NMF factors."),
    Flag("nmf_power", float, 0.3, TABLE,
         "Of a row's degree, which degree normalisation divides by.", 0.0, 1.0),
    Flag("nmf_solver", Literal["cd", "mu"], "cd", TABLE,
         "Coordinate descent or multiplicative updates."),
    Flag("nmf_start", Literal["nndsvda", "random"], "nndsvda", TABLE, "Where NMF starts."),
    Flag("nmf_iterations", int, 30, TABLE, "Of NMF, at most.", 1),
    Flag("als_sweeps", int, 12, TABLE,
         "Of least squares, which refine NMF's start before training; 0: none.", 0),
    Flag("als_exchange", float, 0.3, TABLE,
         "Part of the entries exchanged in the first sweep; LightGCN exchanges none.", 0.0, 1.0),
    Flag("als_zeros", float, 20.0, TABLE, "Weight of all pairs to that of the interactions.", 0.0),
    Flag("als_penalty", float, 0.15, TABLE, "On a row's squared norm.", 1e-6),
    Flag("loss", Literal["bpr", "bce", "bpr-shared", "softmax"], "bpr", TRAINING,
         "bpr or bce against one negative, or bpr or softmax over negatives that a batch shares."),
    Flag("negatives", int, 1024, TRAINING, "Items that a batch shares, where it does.", 1),
    Flag("optimizer", Literal["sgd", "momentum", "adagrad", "adam"], "adam", TRAINING,
         "Of table and dense parameters."),
    Flag("learning_rate", float, 0.003, TRAINING, "Of the optimizer.", 0.0),
    Flag("learning_rate_least", float, 1.0, TRAINING,
         "Part of the learning rate that a cosine takes it to by the last epoch; 1: it stays.",
         0.0, 1.0),
    Flag("l2", float, 0.1, TRAINING, "Penalty on the rows of an example.", 0.0),
    Flag("batch_size", int, 1024, TRAINING, "Examples a step.", 1),
    Flag("epochs", int, 15, TRAINING, "Passes over the data.", 1),
    Flag("patience", int, 0, TRAINING,
         "Epochs without a better validation Recall@20 before it ends; 0: never.", 0),
    Flag("ema", float, 0.0, TRAINING,
         "Judge and keep the weights' moving average over steps, of this decay; 0: the last.",
         0.0, 1.0),
    Flag("valid_users", int, 10_000, TRAINING, "Users drawn for validation; 0 takes all.", 0),
    Flag("refit", bool, False, TRAINING,
         "Then train anew on train and validation, for the epochs that validation chose."),
    Flag("seed", int, 1, TRAINING, "Of the start and every draw.", 0, 2**32 - 1),
    Flag("window", int, 60, MASK, "Steps between two mask updates; 0 keeps the mask.", 0),
    Flag("grow", Literal["cumulative", "magnitude", "instant"], "cumulative", MASK,
         "By gradients summed over a window, by their magnitudes, or by the last batch's."),
    Flag("exchange_fraction", float, 0.2, MASK, "Part of the entries exchanged first.", 0.0, 1.0),
    Flag("exchange_stop", float, 0.75, MASK, "No exchange after this part of the run.", 0.0, 1.0),
    Flag("exchange_least", float, 0.0, MASK, "What the cosine takes the fraction to.", 0.0, 1.0),
    Flag("sampled_fraction", float, 0.5, MASK,
         "Sampled rows S / all rows: those whose whole gradient is looked at.", 0.0, 1.0),
    Flag("importance", Literal["frequency", "uniform", "gradient", "all"], "frequency", MASK,
         "What a row's chance to be in S follows."),
    Flag("backward", Literal["packed", "literal"], "packed", MASK,
         "Train the active entries of every touched row, or those of S alone."),
    Flag("pep_start", float, -15.0, PEP, "Thresholds' start, before the sigmoid."),
    Flag("pep_rate", float, 0.1, PEP, "Thresholds' learning rate.", 0.0),
    Flag("pep_decay", float, 1e-5, PEP, "Weight decay that draws thresholds up.", 0.0),
    Flag("pep_search", float, 0.5, PEP, "The search ends at this part of the run.", 0.0, 1.0),
)  # fmt: skip


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``FLAGS`` to a command that takes them as ``**options``."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [flag.parameter() for flag in FLAGS]
    command.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    return command


def changed(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """Put the flags that were given (not None) into a recipe.

    Raises:
        SparseRecError: as ``Recipe.check`` raises.
    """
    given = {name: value for name, value in options.items() if value is not None}
    parts: dict[str, dict[str, Any]] = {"step": {}, "nmf": {}, "als": {}, "pep": {}, "": {}}
    of_step = {field.name for field in fields(recipe.step)}
    for name, value in given.items():
        prefix, _, rest = name.partition("_")
        if name in of_step:
            parts["step"][name] = value
        elif prefix in ("nmf", "als", "pep"):
            parts[prefix][rest] = value
        else:
            parts[""][name] = value
    recipe = replace(
        recipe,
        step=replace(recipe.step, **parts["step"]),
        nmf=replace(recipe.nmf, **parts["nmf"]),
        als=replace(recipe.als, **parts["als"]),
        pep=replace(recipe.pep, **parts["pep"]),
        **parts[""],
    )
    recipe.check()
    return recipe
