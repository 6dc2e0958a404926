"""No device path leads outside the root."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_bench.virtual.files import DeviceFiles
from sparserec.errors import SparseRecError

COMPONENTS = st.sampled_from(
    ["..", ".", "", "sdcard", "data", "out", "up", "self", "etc", "passwd", "a\nb", "x" * 300]
)
PATHS = st.lists(COMPONENTS, max_size=8).map("/".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=30
)


@pytest.fixture
def files(tmp_path: Path) -> DeviceFiles:
    files = DeviceFiles(tmp_path / "root")
    (files.root / "out").symlink_to("/etc")
    (files.root / "up").symlink_to("../..")
    (files.root / "self").symlink_to("sdcard")
    return files


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, cwd=st.sampled_from(["/", "/sdcard"]), follow=st.booleans())
def test_every_path_is_inside_or_refused(
    files: DeviceFiles, path: str, cwd: str, follow: bool
) -> None:
    try:
        host = files.resolve(path, cwd, follow=follow)
    except OSError:
        return
    inside = host.parent if not follow and host != files.root else host
    assert inside.resolve().is_relative_to(files.root)


def test_paths_that_matter(files: DeviceFiles) -> None:
    assert files.resolve("/sdcard/../../../x") == files.root / "x"
    assert files.resolve("a", "/sdcard") == files.root / "sdcard/a"
    assert files.resolve("/self/a") == files.root / "sdcard/a"
    assert files.resolve("/") == files.resolve("//..") == files.root
    assert files.resolve("/out", follow=False) == files.root / "out"
    for refused in ("/out/passwd", "/up", "/up/x", "/sdcard/a\nb", "/a\0b", "/" + "a" * 2000):
        with pytest.raises(OSError, match=r"."):
            files.resolve(refused)


def test_a_root_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SparseRecError, match="file"):
        DeviceFiles(tmp_path / "file")
    with pytest.raises(SparseRecError, match="whole machine"):
        DeviceFiles(Path("/"))
