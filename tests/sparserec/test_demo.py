"""What of the demo needs no device."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.datasets import Dataset
from pipeline.data.synthetic import generate
from pipeline.files import alone
from pipeline.recipes import RECIPES
from pipeline.run import load_run
from pipeline.start import initial_table
from sparserec import demo
from sparserec.errors import SparseRecError


def test_it_is_said_first_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_dataset", lambda yes: (None, None))
    monkeypatch.setattr(demo, "_initialise", lambda *_: pytest.fail("it began"))
    (tmp_path / "file").touch()
    with pytest.raises(SparseRecError, match="file: cannot be made"):
        demo.demo(out=tmp_path / "file")
    with alone(tmp_path), pytest.raises(SparseRecError, match="another run writes there"):
        demo.demo(out=tmp_path)


def test_it_trains_whatever_a_killed_one_left(tmp_path: Path) -> None:
    data = Dataset("made", "0" * 64, generate(60, 80, 2000))
    split = data.split()
    recipes = {name: replace(RECIPES[name](), epochs=1) for name in demo.NAMES}
    left = tmp_path / "sparserec" / "checkpoint.safetensors"
    left.parent.mkdir()
    left.write_text("of another recipe")
    start = initial_table(recipes["sparserec"], split)
    fitted = demo._train(recipes, data, split, start, tmp_path)
    for name in demo.NAMES:
        assert load_run(tmp_path / name).history == fitted[name].history
