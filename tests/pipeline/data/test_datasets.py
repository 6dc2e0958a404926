"""Named datasets: the published numbers, and fetching against a server on loopback."""

import hashlib
import os
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.data import datasets, download
from pipeline.data.datasets import DATASETS, Named, Url, fetch, load
from sparserec.errors import SparseRecError

FILES = {"train.txt": b"0 1 2 3\n1 1 2\n", "test.txt": b"0 4\n1 3\n"}


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def serving(httpd):
    """Run a server in a thread; yield its address."""
    thread = threading.Thread(target=partial(httpd.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.fixture
def server(tmp_path):
    """Serve a folder on loopback; yield (folder, base address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    with serving(httpd) as address:
        yield folder, address


@pytest.fixture
def tiny(server, monkeypatch):
    """A named dataset on that server, and no folder of the user's own."""
    files = tuple(Url(n, _sha256(data), f"{server[1]}/{n}") for n, data in FILES.items())
    monkeypatch.setitem(DATASETS, "tiny", Named("tiny", "two users", "none", files))
    monkeypatch.delenv("SPARSEREC_DATA", raising=False)
    return server[0]


def _yes(dataset):
    return True


def test_fetch_asks_first_then_caches(tiny, tmp_path):
    asked, seen = [], []
    cache = tmp_path / "cache"

    def confirm(dataset):
        asked.append(dataset.name)
        assert not cache.exists()
        return True

    folder = fetch("tiny", confirm, cache, lambda *progress: seen.append(progress))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert ("download train.txt", 14, 14) in seen
    (tiny / "train.txt").unlink()  # the second time nothing is downloaded and nothing asked
    assert fetch("tiny", confirm, cache) == folder
    assert asked == ["tiny"]


def test_cache_folder_follows_the_environment(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetch("tiny", _yes) == tmp_path / "xdg" / "sparserec" / "tiny"


def test_refusal_fetches_nothing(tiny, tmp_path):
    with pytest.raises(SparseRecError, match="terms were not accepted") as error:
        load("tiny", cache=tmp_path / "cache")
    assert error.value.fix == "run: sparserec data fetch tiny"
    assert not (tmp_path / "cache").exists()


def test_changed_file_is_not_kept(tiny, tmp_path):
    (tiny / "test.txt").write_bytes(b"0 4\n1 9\n")
    with pytest.raises(SparseRecError, match=r"test\.txt: SHA-256 is .*, expected"):
        fetch("tiny", _yes, tmp_path / "cache")
    assert not (tmp_path / "cache" / "tiny" / "test.txt").exists()


def test_network_failures_are_one_message(tiny, tmp_path):
    (tiny / "test.txt").unlink()
    with pytest.raises(SparseRecError, match=r"/test\.txt: the download failed \(File not found\)"):
        fetch("tiny", _yes, tmp_path / "cache")
    with pytest.raises(SparseRecError, match="refused") as error:
        download.download("http://127.0.0.1:9/x", tmp_path / "x", "", lambda *_: None)
    assert "SPARSEREC_DATA" in error.value.fix


def test_connection_that_breaks_off(tmp_path):
    class Short(QuietHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")

    target = tmp_path / "x"
    with (
        serving(ThreadingHTTPServer(("127.0.0.1", 0), Short)) as address,
        pytest.raises(SparseRecError, match="100 bytes were announced, 4 came"),
    ):
        download.download(f"{address}/x", target, _sha256(b"half"), lambda *_: None)
    assert not target.exists()


def test_damaged_cache_is_named(tiny, tmp_path):
    folder = fetch("tiny", _yes, tmp_path)
    (folder / "train.txt").write_bytes(b"0 1\n")
    with pytest.raises(SparseRecError, match=r"train\.txt: SHA-256 is") as error:
        load("tiny", cache=tmp_path)
    assert "delete it" in error.value.fix


def test_unwritable_cache(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SparseRecError, match="cannot be written") as error:
        fetch("tiny", _yes, tmp_path / "file" / "cache")
    assert "--cache" in error.value.fix


def test_own_folder_comes_first_and_is_checked(tiny, tmp_path, monkeypatch):
    own = tmp_path / "own" / "tiny"
    own.mkdir(parents=True)
    for name, data in FILES.items():
        (own / name).write_bytes(data)
    monkeypatch.setenv("SPARSEREC_DATA", str(own.parent))
    assert fetch("tiny") == own
    (own / "train.txt").write_bytes(b"0 1\n")
    with pytest.raises(SparseRecError, match="SHA-256"):
        load("tiny")


def test_load_of_a_split(tiny, tmp_path, monkeypatch):
    dataset = load("tiny", confirm=_yes, cache=tmp_path / "cache")
    digests = "".join(f"{_sha256(data)}\n" for data in FILES.values())
    assert dataset.source_sha256 == _sha256(digests.encode())
    split = dataset.split()
    assert (len(split.train) + len(split.valid), len(split.later)) == (5, 1)
    assert split.dropped_later == 1  # item 4 is nowhere in train
    # The same files as an unnamed folder, by path and through the user's own folder.
    assert load(str(tiny)).source_sha256 == dataset.source_sha256
    monkeypatch.setenv("SPARSEREC_DATA", str(tiny.parent))
    assert load("served").name == "served"


def test_load_of_own_files(tmp_path):
    log = tmp_path / "shop.csv"
    rows = "".join(f"u,i{k},{k}\nv,i{9 - k},{k}\n" for k in range(10))
    log.write_text("user,item,time\n" + rows)
    dataset = load(str(log), time_col="time")
    assert (dataset.name, dataset.source_sha256) == ("shop", _sha256(log.read_bytes()))
    split = dataset.split()
    assert [len(p) for p in (split.train, split.valid, split.log, split.later)] == [12, 2, 4, 2]
    text = tmp_path / "mine.txt"
    text.write_text("7 " + " ".join(map(str, range(20))) + "\n")
    split = load(str(text)).split(seed=3)
    assert len(split.train) == 12
    assert len(load(str(text), time_col=None, duplicates="error").interactions) == 20
    with pytest.raises(SparseRecError, match=r"mine\.txt.*min_rating, duplicates"):
        load(str(text), min_rating=4, duplicates="keep-first")


def test_every_named_dataset_says_what_must_be_said():
    for dataset in DATASETS.values():
        assert dataset.terms
        assert dataset.summary
        for source in dataset.files:
            assert len(source.sha256) == 64
            assert source.address


def test_pip_failure_is_one_message(tmp_path, monkeypatch):
    # An index on loopback where nobody listens; retries would only wait.
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(SparseRecError, match=r"recbole==1\.2\.1 could not be fetched") as error:
        fetch("ml-100k", _yes, tmp_path)
    assert "\n" not in error.value.message
    assert not (tmp_path / "ml-100k").exists()


@pytest.fixture(scope="session")
def ml_100k():
    try:
        return load("ml-100k", confirm=_yes)
    except SparseRecError as error:
        pytest.skip(f"ml-100k is not to be had here: {error.message}")


def test_ml_100k_numbers(ml_100k):
    log = ml_100k.interactions
    assert (log.num_users, log.num_items, len(log)) == (943, 1682, 100_000)
    # The first line of the file, and the span that GroupLens gives: 19/9/1997 to 22/4/1998.
    first = (log.user_ids[log.users[0]], log.item_ids[log.items[0]], int(log.timestamps[0]))
    assert first == ("196", "242", 881250949)
    assert (log.timestamps.min(), log.timestamps.max()) == (874724710, 893286638)


def test_ml_100k_by_rating(ml_100k):
    # 55,375 ratings of 4 and 5: GroupLens' histogram has 34,174 and 21,201.
    high = load("ml-100k", confirm=_yes, min_rating=4)
    assert (len(high.interactions), high.interactions.below_rating) == (55_375, 44_625)


def test_ml_100k_split(ml_100k):
    split = ml_100k.split()
    sizes = [len(part) for part in (split.train, split.valid, split.log, split.later)]
    # The figures of docs/data.md.
    assert sizes == [59_619, 9_956, 19_986, 10_401]
    assert split.dropped_later == 100_000 - sum(sizes) == 38
    assert split.known_users == split.num_users == 943
    assert (split.known_items, split.num_items) == (1575, 1575 + 73)


@pytest.mark.parametrize(
    ("name", "users", "items", "train", "test"),
    [
        ("gowalla", 29_858, 40_981, 810_128, 217_242),
        ("yelp2018", 31_668, 38_048, 1_237_259, 324_147),
    ],
)
def test_lightgcn_splits(name, users, items, train, test):
    own = os.environ.get("SPARSEREC_DATA")
    cached = datasets.default_cache() / name
    if not (own and Path(own, name).is_dir()) and not cached.is_dir():
        pytest.skip(f"{name} is neither in $SPARSEREC_DATA nor in the cache")
    dataset = load(name)
    log = dataset.interactions
    assert (log.num_users, log.num_items) == (users, items)
    assert (len(log), len(dataset.test)) == (train, test)
    split = dataset.split()
    assert (split.known_users, split.known_items, split.dropped_later) == (users, items, 0)
    assert len(split.later) == test
