"""``sparserec simulate``: what cannot be measured on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

INPUTS = Path("docs/results/fleet-inputs.json")

simulate = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Simulate what one machine cannot measure."
)


@simulate.callback()
def _group() -> None:
    """Keep the group a group while it has one command."""


@simulate.command()
def fleet(
    inputs: Annotated[
        Path, typer.Argument(help="Measured sizes and times: docs/scale.md says which.")
    ] = INPUTS,
    devices: Annotated[int, typer.Option(help="Of the fleet.", min=1, max=10_000_000)] = 100_000,
    window_hours: Annotated[float, typer.Option(help="Check-ins are spread over.", min=0.0)] = 1.0,
    current: Annotated[
        float, typer.Option(help="Part of the devices a delta suits.", min=0.0, max=1.0)
    ] = 0.9,
    link_mbps: Annotated[float, typer.Option(help="Median of the devices' links.", min=0.01)] = 20,
    connections: Annotated[int, typer.Option(help="The server handles at once.", min=1)] = 500,
    server_mbps: Annotated[float, typer.Option(help="Of the server.", min=0.01)] = 1000,
    breaks: Annotated[
        float, typer.Option(help="Chance that a transfer breaks.", min=0.0, max=0.9)
    ] = 0.02,
    slower: Annotated[
        float, typer.Option(help="A device against what was measured.", min=0.01)
    ] = 3.0,
    collectors: Annotated[int, typer.Option(help="Connections for reports.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of all draws.", min=0)] = 1,
    plot: Annotated[Path | None, typer.Option(help="Draw it to this PNG.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Send a new generation to a fleet and collect its reports: whole bundles against deltas.

    Sizes and times come from a file of measurements; all options are assumptions.

    Example: sparserec simulate fleet --devices 1000000 --plot fleet.png
    """
    from dataclasses import asdict

    from rich.console import Console

    from device_bench.simulate import fleet as fleets
    from device_bench.simulate import inputs as files
    from device_bench.simulate import show
    from pipeline.files import write_json

    measured = files.load(inputs)
    assumed = fleets.Fleet(
        devices,
        window_hours * 3600,
        current,
        link_mbps,
        connections=connections,
        server_mbps=server_mbps,
        breaks=breaks,
        slower=slower,
        collectors=collectors,
        seed=seed,
    )
    outcomes = {
        name: fleets.simulate(measured, assumed, deltas)
        for name, deltas in (("whole bundles", False), ("deltas", True))
    }
    found = {name: show.figures(outcome) for name, outcome in outcomes.items()}
    console = Console()
    show.show(console, found)
    if plot is not None:
        show.plot(plot, outcomes)
        console.print(f"figure: {plot}", soft_wrap=True)
    if json is not None:
        content = {"inputs": asdict(measured), "assumed": asdict(assumed), "outcomes": found}
        write_json(json, content)
