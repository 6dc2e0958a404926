"""The ExecuTorch runtime that goes into the APK: the npm package's, or that of an official AAR.

Either is checked before use: the API's classes, the libraries of each ABI, their machine, their
alignment, what they link to, the natives that the API declares, and the operators.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import elf
import pins
from classfile import ClassFile
from inputs import EXECUTORCH, FBJNI, NATIVELOADER, digest_of
from nests import open_nests
from pins import APK
from stages import digest_of_files, once

from sparserec.errors import SparseRecError

ABIS = {"arm64-v8a": elf.AARCH64, "x86_64": elf.X86_64}
API = ("Module", "EValue", "Tensor", "DType", "MethodMetadata", "ExecuTorchRuntime",
       "ExecutorchRuntimeException")  # fmt: skip
# What the training step and the scorer use. The harness compares each bundle's own list with the
# library's register when it loads the bundle.
OPERATORS = (
    "aten::abs.out", "aten::add.Scalar_out", "aten::add.out", "aten::amax.out",
    "aten::arange.start_out", "aten::bmm.out", "aten::cat.out", "aten::clamp.out",
    "aten::div.Scalar_out", "aten::div.out", "aten::embedding.out", "aten::eq.Scalar_out",
    "aten::eq.Tensor_out", "aten::exp.out", "aten::expand_copy.out", "aten::full.out",
    "aten::full_like.out", "aten::gather.out", "aten::ge.Scalar_out", "aten::ge.Tensor_out",
    "aten::gt.Scalar_out", "aten::gt.Tensor_out", "aten::log.out", "aten::log1p.out",
    "aten::logical_and.out", "aten::logical_not.out", "aten::mean.dtype_out", "aten::mm.out",
    "aten::mul.Scalar_out", "aten::mul.out", "aten::ne.Scalar_out", "aten::neg.out",
    "aten::permute_copy.out", "aten::pow.Tensor_Scalar_out", "aten::repeat.out",
    "aten::scalar_tensor.out", "aten::select_copy.int_out", "aten::sign.out",
    "aten::slice_copy.Tensor_out", "aten::slice_scatter.out", "aten::split_with_sizes_copy.out",
    "aten::sqrt.out", "aten::squeeze_copy.dims_out", "aten::sub.out", "aten::sum.IntList_out",
    "aten::topk.values", "aten::unsqueeze_copy.out", "aten::where.self_out",
    "dim_order_ops::_to_dim_order_copy.out",
)  # fmt: skip
# Public libraries of Android 8.
SYSTEM = {
    f"lib{name}.so"
    for name in ("android", "c", "dl", "EGL", "GLESv2", "jnigraphics", "log", "m", "vulkan", "z")
}
OFFICIAL = "take executorch-android's AAR as published, 1.0 or newer, or build without RUNTIME"


@dataclass(frozen=True)
class Runtime:
    """An unpacked and checked runtime.

    Attributes:
        name: what it is and its version, for reports.
        digest: hash of all that it was made from.
        folder: ``classes/*.jar``, ``lib/<abi>/*.so``, ``runtime.json``.
    """

    name: str
    digest: str
    folder: Path

    @property
    def jars(self) -> list[Path]:
        return sorted((self.folder / "classes").iterdir())

    def libraries(self, abi: str) -> list[Path]:
        return sorted((self.folder / "lib" / abi).iterdir())


def prepare(aar: Path | None, cache: Path, work: Path) -> Runtime:
    """Unpack the default runtime, or the one in ``aar``, into ``work``, and check it.

    Raises:
        SparseRecError: an archive cannot be had, or is not what it should be.
    """
    if aar is None:
        name, source = f"{EXECUTORCH.name} {EXECUTORCH.version}", EXECUTORCH.digest
    else:
        if not aar.is_file():
            raise SparseRecError(f"{aar}: no such file", OFFICIAL)
        source = digest_of(aar)
        name = f"{aar.name} ({source[:12]})"
    code = [APK / f"{name}.py" for name in ("classfile", "elf", "native", "nests")]
    ingredients = {
        "runtime": source,
        "fbjni": pins.identity((FBJNI, NATIVELOADER)),
        "code": digest_of_files(code),
    }

    def unpack(part: Path) -> None:
        (part / "classes").mkdir(parents=True)
        _unpack_fbjni(cache, part)
        if aar is None:
            _unpack_npm(cache, part)
        else:
            _unpack_aar(aar, part)
        published = part / "executorch.jar"
        check(part, name)
        try:
            open_nests(published, part / "classes" / "executorch.jar")
        except (ValueError, zipfile.BadZipFile) as error:
            raise SparseRecError(f"{name}: classes.jar: {error}", OFFICIAL) from None
        published.unlink()
        hashes = {
            str(path.relative_to(part)): digest_of(path) for path in sorted(part.rglob("*.so"))
        }
        text = json.dumps({"runtime": name, "files": hashes}, indent=2) + "\n"
        (part / "runtime.json").write_text(text, encoding="utf-8")

    once(work / "runtime", ingredients, unpack)
    digest = hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()
    return Runtime(name, digest, work / "runtime")


def _unpack_fbjni(cache: Path, folder: Path) -> None:
    """The classes come from the AAR: those of ``fbjni-java-only`` are too new for dx."""
    fbjni, nativeloader = pins.get(cache, FBJNI, NATIVELOADER)
    shutil.copy(nativeloader, folder / "classes" / "nativeloader.jar")
    with zipfile.ZipFile(fbjni) as archive:
        (folder / "classes" / "fbjni.jar").write_bytes(archive.read("classes.jar"))
        for abi in ABIS:
            for name in ("libfbjni.so", "libc++_shared.so"):
                _put(folder, abi, name, archive.read(f"jni/{abi}/{name}"))


def _unpack_npm(cache: Path, folder: Path) -> None:
    (package,) = pins.get(cache, EXECUTORCH)
    wanted = {
        f"package/third-party/android/libs/executorch/{abi}/libexecutorch.so": abi for abi in ABIS
    }
    with tarfile.open(package) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is None:
                continue
            if member.name == "package/android/libs/classes.jar":
                (folder / "executorch.jar").write_bytes(file.read())
            elif member.name in wanted:
                _put(folder, wanted[member.name], "libexecutorch.so", file.read())


def _unpack_aar(aar: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(aar) as archive:
            if "classes.jar" not in archive.namelist():
                raise SparseRecError(
                    f"{aar}: has no classes.jar, so it is no Android library", OFFICIAL
                )
            (folder / "executorch.jar").write_bytes(archive.read("classes.jar"))
            for entry in archive.namelist():
                parts = PurePosixPath(entry).parts
                if len(parts) == 3 and parts[0] == "jni" and parts[1] in ABIS:
                    _put(folder, parts[1], parts[2], archive.read(entry))
    except zipfile.BadZipFile as error:
        raise SparseRecError(f"{aar}: is no AAR ({error})", OFFICIAL) from None


def _put(folder: Path, abi: str, name: str, content: bytes) -> None:
    path = folder / "lib" / abi / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def check(folder: Path, name: str) -> None:
    """Raise SparseRecError, naming the file and what is wrong, unless the runtime can be used."""
    natives = _natives(folder / "executorch.jar", name)
    for abi, machine in ABIS.items():
        libraries = {path.name: path for path in (folder / "lib" / abi).iterdir()}
        if "libexecutorch.so" not in libraries:
            raise SparseRecError(f"{name}: has no jni/{abi}/libexecutorch.so", OFFICIAL)
        for path in libraries.values():
            _check_library(path.read_bytes(), machine, set(libraries), f"{name}: {abi}/{path.name}")
        content = libraries["libexecutorch.so"].read_bytes()
        lacking = [text for text in (*natives, *OPERATORS) if text.encode() + b"\0" not in content]
        if lacking:
            raise SparseRecError(
                f"{name}: {abi}/libexecutorch.so lacks {', '.join(lacking)}", OFFICIAL
            )


def _natives(jar: Path, name: str) -> list[str]:
    """Names that the library must hold: the API's classes with natives, and those methods."""
    found: list[str] = []
    try:
        with zipfile.ZipFile(jar) as archive:
            for simple in API:
                entry = f"org/pytorch/executorch/{simple}.class"
                if entry not in archive.namelist():
                    raise SparseRecError(f"{name}: classes.jar lacks {entry}", OFFICIAL)
                parsed = ClassFile.parse(archive.read(entry))
                if parsed.natives:
                    found += [parsed.name, *parsed.natives]
    except (ValueError, zipfile.BadZipFile) as error:
        raise SparseRecError(f"{name}: classes.jar: {error}", OFFICIAL) from None
    return found


def _check_library(content: bytes, machine: int, beside: set[str], what: str) -> None:
    try:
        library = elf.Library.parse(content)
    except ValueError as error:
        raise SparseRecError(f"{what}: {error}", OFFICIAL) from None
    if library.machine != machine:
        raise SparseRecError(f"{what}: is for machine {library.machine}, not {machine}", OFFICIAL)
    if library.alignment < elf.PAGE:
        raise SparseRecError(
            f"{what}: is aligned to {library.alignment} bytes; phones with 16 KB pages refuse it",
            OFFICIAL,
        )
    # A backend's library may link to libexecutorch.so by the name it has inside.
    unknown = sorted(set(library.needed) - beside - SYSTEM - {"libexecutorch_jni.so"})
    if unknown:
        raise SparseRecError(f"{what}: needs {', '.join(unknown)}, which is not there", OFFICIAL)
