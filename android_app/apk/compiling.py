"""From Kotlin, Java libraries and resources to a dex file and the APK without code."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pins
from inputs import digest_of
from native import Runtime
from pins import ANDROID_APP, APK
from stages import digest_of_files, digest_of_tree, java, jdk_module, once, run, tool

from sparserec.errors import SparseRecError

RULES = APK / "rules.pro"
HARNESS = ANDROID_APP / "harness"
APP = ANDROID_APP / "app"


@dataclass(frozen=True)
class Sources:
    """Where the app's parts are: by default ``android_app``."""

    harness: Path = HARNESS
    app: Path = APP


@dataclass(frozen=True)
class Work:
    """Folders of one build, and the app's parts that it takes."""

    cache: Path
    folder: Path
    sources: Sources


def kotlin_options(pom: Path) -> list[str]:
    """The compiler's options in a pom.xml, so that both builds make the same classes."""
    text = re.sub(r' xmlns="[^"]+"', "", pom.read_text(encoding="utf-8"), count=1)
    for plugin in ElementTree.fromstring(text).iter("plugin"):
        if plugin.findtext("artifactId") == "kotlin-maven-plugin":
            target = plugin.findtext("configuration/jvmTarget") or ""
            options = [arg.text or "" for arg in plugin.iterfind("configuration/args/arg")]
            return ["-jvm-target", target, *options]
    raise AssertionError(f"{pom} has kotlin-maven-plugin")


def compile_harness(work: Work, runtime: Runtime) -> Path:
    """Folder of the harness's classes: the same, byte for byte, as those Maven makes."""
    made = work.folder / "harness"
    options = kotlin_options(ANDROID_APP / "pom.xml")
    ingredients = _kotlin_ingredients(work.sources.harness, options) | {"runtime": runtime.digest}

    def make(part: Path) -> None:
        link_to = [runtime.folder / "classes" / "executorch.jar"]
        try:
            _kotlinc(work, "harness", work.sources.harness, part, link_to, options)
        except SparseRecError as error:
            raise SparseRecError(
                f"the harness does not compile against {runtime.name}: {error.message}"
            ) from None

    once(made, ingredients, make)
    return made


def compile_app(work: Work, harness: Path, r_java: Path) -> Path:
    """Folder of the app's classes and of ``R``."""
    made = work.folder / "app"
    options = kotlin_options(APP / "pom.xml")
    ingredients = _kotlin_ingredients(work.sources.app / "src", options) | {
        "android": pins.ANDROID_34.digest,
        "harness": digest_of_tree(harness),
        "r_java": digest_of(r_java),
        "jdk": jdk_module()[1],
    }

    def make(part: Path) -> None:
        (android,) = pins.get(work.cache, pins.ANDROID_34)
        javac = [tool("javac"), "--release", "8", "-Xlint:-options", "-d", part, r_java]
        run("compiling R", javac)
        _kotlinc(work, "app", work.sources.app / "src", part, [part, harness, android], options)

    once(made, ingredients, make)
    return made


def _kotlin_ingredients(sources: Path, options: list[str]) -> dict[str, object]:
    archives = (*pins.KOTLINC, *pins.LIBRARIES)
    return {
        "sources": digest_of_tree(sources),
        "kotlinc": pins.identity(archives),
        "options": options,
        "jdk": jdk_module()[1],
    }


def _kotlinc(
    work: Work, module: str, sources: Path, made: Path, link_to: list[Path], options: list[str]
) -> None:
    compiler = pins.get(work.cache, *pins.KOTLINC)
    libraries = pins.get(work.cache, *pins.LIBRARIES, pins.ANNOTATIONS)
    class_path = os.pathsep.join(map(str, [*link_to, *libraries]))
    command = java(
        compiler, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib", "-no-reflect",
        "-module-name", module, *options, "-cp", class_path, "-d", made, sources)  # fmt: skip
    run(f"compiling {sources}", command)


def link_resources(work: Work) -> tuple[Path, Path, Path]:
    """``resources.apk`` with manifest, resources and assets; ``R.java``; rules for the manifest."""
    made, app = work.folder / "resources", work.sources.app
    parts = [app / "AndroidManifest.xml", *sorted((app / "res").rglob("*.*"))]
    ingredients = {
        "manifest_and_res": digest_of_files(parts),
        "names": [str(path.relative_to(app)) for path in parts],
        "assets": digest_of_tree(app / "assets"),
        "android": pins.ANDROID_34.digest,
        "aapt2": run("aapt2", [tool("aapt2"), "version"]).strip(),
    }

    def make(part: Path) -> None:
        part.mkdir()
        (android,) = pins.get(work.cache, pins.ANDROID_34)
        compiled = part / "compiled.zip"
        run("compiling resources", [tool("aapt2"), "compile", "--dir", app / "res", "-o", compiled])
        assets = ["-A", app / "assets"] if (app / "assets").exists() else []
        command = [
            tool("aapt2"), "link", "-I", android, "--manifest", app / "AndroidManifest.xml",
            "--java", part / "r", "--proguard", part / "manifest.pro", *assets,
            "-o", part / "resources.apk", compiled,
        ]  # fmt: skip
        run("linking resources", command)

    once(made, ingredients, make)
    (r_java,) = (made / "r").rglob("R.java")
    return made / "resources.apk", r_java, made / "manifest.pro"


def shrink(work: Work, runtime: Runtime, classes: list[Path], manifest_rules: Path) -> Path:
    """Jar of the classes that the entry points and the natives reach, with no invokedynamic."""
    made = work.folder / "shrunk.jar"
    module, version = jdk_module()
    ingredients = {
        "classes": [digest_of_tree(folder) for folder in classes],
        "runtime": runtime.digest,
        "libraries": pins.identity(pins.LIBRARIES),
        "rules": digest_of_files([RULES, manifest_rules]),
        "proguard": pins.identity(pins.PROGUARD),
        "jdk": version,
    }

    def make(part: Path) -> None:
        (android,) = pins.get(work.cache, pins.ANDROID_34)
        (annotations,) = pins.get(work.cache, pins.ANNOTATIONS)
        jars = [*runtime.jars, *pins.get(work.cache, *pins.LIBRARIES)]
        arguments: list[object] = [f"@{RULES}", f"@{manifest_rules}"]
        for folder in classes:
            arguments += ["-injars", _quoted(folder, "!META-INF/**")]
        for jar in jars:
            arguments += ["-injars", _quoted(jar, "!META-INF/**")]
        arguments += ["-libraryjars", _quoted(module, "!**.jar;!module-info.class")]
        arguments += ["-libraryjars", _quoted(android, "!META-INF/**;!java/**;**.class")]
        arguments += ["-libraryjars", _quoted(annotations), "-outjars", _quoted(part)]
        tools = pins.get(work.cache, *pins.PROGUARD)
        run("shrinking", java(tools, "proguard.ProGuard", *arguments))

    once(made, ingredients, make)
    return made


def _quoted(path: Path, only: str = "") -> str:
    return f"'{path}'" + (f"({only})" if only else "")


def dex(work: Work, jar: Path) -> Path:
    """``classes.dex`` for Android 8 and newer."""
    made = work.folder / "classes.dex"
    ingredients = {"jar": _content_of(jar), "dx": pins.DX.digest}

    def make(part: Path) -> None:
        dx = pins.get(work.cache, pins.DX)
        options = ["--dex", "--min-sdk-version=26", f"--output={part}"]
        run("dexing", java(dx, "com.android.dx.command.Main", *options, jar))

    once(made, ingredients, make)
    return made


def _content_of(jar: Path) -> str:
    """Hash over the entries: ProGuard writes the time of day into the jar."""
    with zipfile.ZipFile(jar) as archive:
        text = " ".join(f"{entry.filename}:{entry.CRC:08x}" for entry in archive.infolist())
    return hashlib.sha256(text.encode()).hexdigest()
