"""The Gradle build, which cannot be run here, says what Maven's and the APK's builds say."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sparserec import __version__

ROOT = Path(__file__).resolve().parents[2]
ANDROID_APP = ROOT / "android_app"
SCRIPTS = {
    "settings": ANDROID_APP / "settings.gradle.kts",
    "root": ANDROID_APP / "build.gradle.kts",
    "harness": ANDROID_APP / "gradle" / "harness" / "build.gradle.kts",
    "app": ANDROID_APP / "app" / "build.gradle.kts",
}
POMS = {"harness": ANDROID_APP / "pom.xml", "app": ANDROID_APP / "app" / "pom.xml"}
ANDROID = "{http://schemas.android.com/apk/res/android}"

# The APK's build is a script beside its modules, not a package.
sys.path.insert(0, str(ANDROID_APP / "apk"))

import compiling  # noqa: E402
import native  # noqa: E402
import pins  # noqa: E402
import recipe  # noqa: E402
import verifying  # noqa: E402

both_modules = pytest.mark.parametrize("module", POMS)


def code(script: str) -> str:
    """A script without its comments."""
    return re.sub(r"^\s*//.*", "", SCRIPTS[script].read_text(), flags=re.MULTILINE)


def only(pattern: str, script: str) -> str:
    """What the pattern's one group holds, at its only match."""
    (found,) = re.findall(pattern, code(script), re.MULTILINE)
    return str(found)


def value(script: str, name: str) -> str:
    """What ``name = value`` says, without quotes."""
    return only(rf'^\s*{name} = "?([^"\n]+?)"?$', script)


def strings(script: str, before: str) -> list[str]:
    """The strings of ``before listOf(...)``; ``before`` is a pattern."""
    return re.findall(r'"([^"]*)"', only(rf"{before}\s*listOf\(([^)]*)\)", script))


def folder(script: str, sources: str) -> Path:
    """The one folder of ``sources.setSrcDirs``, seen from the script; ``sources`` is a pattern."""
    (found,) = strings(script, rf"{sources}\.setSrcDirs\(")
    return (SCRIPTS[script].parent / found).resolve()


def dependencies(script: str, configuration: str) -> set[str]:
    """Those published, as ``group:artifact:version``."""
    pattern = rf'^\s*{configuration}\("([^":]+:[^":]+:[^":]+)"\)'
    return set(re.findall(pattern, code(script), re.MULTILINE))


class Pom:
    """A pom.xml; its properties are filled in."""

    def __init__(self, path: Path) -> None:
        text = re.sub(r' xmlns="[^"]+"', "", path.read_text(), count=1)
        self.root = ElementTree.fromstring(text)
        own = {each.tag: each.text or "" for each in self.root.iterfind("properties/*")}
        self.properties = own | {"project.basedir": str(path.parent)}

    def text(self, element: ElementTree.Element, path: str) -> str:
        filled = element.findtext(path) or ""
        while found := re.search(r"\$\{([^}]+)\}", filled):
            filled = filled.replace(found[0], self.properties[found[1]])
        return filled

    def folder(self, name: str) -> Path:
        return Path(self.text(self.root, f"build/{name}")).resolve()

    def dependencies(self, *scopes: str) -> set[str]:
        """Those of these scopes; "" is the default one."""
        return {
            ":".join(self.text(each, tag) for tag in ("groupId", "artifactId", "version"))
            for each in self.root.iterfind("dependencies/dependency")
            if self.text(each, "scope") in scopes
        }


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_says_that_it_is_not_built_here(script: str) -> None:
    first = SCRIPTS[script].read_text().splitlines()[0]
    assert first.startswith("// For Android Studio. Not built in CI")


def test_no_script_is_unknown_or_beside_the_sources() -> None:
    """The Kotlin compiler would take it for one of them, and refuses scripts."""
    found = {path for path in ANDROID_APP.rglob("*.kts") if "target" not in path.parts}
    assert found == set(SCRIPTS.values())
    sources = recipe.Sources()
    assert not [path for path in found if {sources.harness, sources.app / "src"} & {*path.parents}]


def test_the_modules_are_there() -> None:
    assert re.findall(r'"(.*?)"', only(r"^include\((.*)\)", "settings")) == [":harness", ":app"]
    moved = only(r'project\(":harness"\)\.projectDir = file\("(.*)"\)', "settings")
    assert ANDROID_APP / moved == SCRIPTS["harness"].parent
    assert 'implementation(project(":harness"))' in code("app")
    plugins = re.findall(r'^\s*id\("(.*)"\)$', code("app") + code("harness"), re.MULTILINE)
    assert set(plugins) == set(re.findall(r'id\("(.*)"\) version', code("root")))


def test_kotlin_has_one_version() -> None:
    versions = dict(re.findall(r'id\("(.*)"\) version "(.*)" apply false', code("root")))
    assert versions.pop("com.android.application")
    assert set(versions.values()) == {pins.KOTLIN}
    assert {Pom(path).properties["kotlin.version"] for path in POMS.values()} == {pins.KOTLIN}
    # The comment says which versions of the two plugins go together.
    assert f"Kotlin {pins.KOTLIN} takes" in SCRIPTS["root"].read_text()


@both_modules
def test_the_compilers_options_are_the_same(module: str) -> None:
    _, target, *options = compiling.kotlin_options(POMS[module])
    if (
        module == "app"
    ):  # Android's plugin passes -no-jdk, and the compiler refuses the two together.
        options.remove("-Xjdk-release=8")
    assert strings(module, "freeCompilerArgs =") == options
    version = f"VERSION_{target.replace('.', '_')}"
    assert value(module, "jvmTarget") == version.replace("VERSION", "JvmTarget.JVM")
    assert value(module, "sourceCompatibility") == f"JavaVersion.{version}"
    assert value(module, "targetCompatibility") == f"JavaVersion.{version}"


def test_the_source_folders_are_the_same() -> None:
    harness, app, sources = Pom(POMS["harness"]), Pom(POMS["app"]), recipe.Sources()
    main, test = (rf'sourceSets\.named\("{name}"\) {{ kotlin' for name in ("main", "test"))
    assert folder("harness", main) == harness.folder("sourceDirectory") == sources.harness
    assert folder("harness", test) == harness.folder("testSourceDirectory")
    assert folder("app", r"\bjava") == app.folder("sourceDirectory") == sources.app / "src"
    for name in ("res", "assets"):
        assert folder("app", rf"\b{name}") == sources.app / name
    manifest = only(r'manifest\.srcFile\("(.*)"\)', "app")
    assert (SCRIPTS["app"].parent / manifest).is_file()
    assert SCRIPTS["app"].parent == sources.app


def test_the_libraries_are_the_same() -> None:
    harness, app = Pom(POMS["harness"]), Pom(POMS["app"])
    # Kotlin's plugin adds the standard library of its own version.
    stdlib = f"{pins.KOTLIN_STDLIB.name}:{pins.KOTLIN_STDLIB.version}"
    assert harness.dependencies("") == dependencies("harness", "implementation") | {stdlib}
    assert dependencies("harness", "testImplementation") == harness.dependencies("test")
    assert {f"{each.name}:{each.version}" for each in pins.LIBRARIES} >= harness.dependencies("")
    # The app has no library of its own.
    assert app.dependencies("", "runtime") == harness.dependencies("")
    assert not re.search(r'"[^":]+:[^":]+:[^":]+"', code("app"))


def test_the_app_is_the_same() -> None:
    manifest = ElementTree.parse(recipe.Sources().app / "AndroidManifest.xml").getroot()
    levels = manifest.find("uses-sdk")
    assert levels is not None
    assert value("app", "applicationId") == value("app", "namespace") == manifest.get("package")
    assert value("app", "applicationId") == verifying.PACKAGE
    assert value("app", "versionCode") == manifest.get(f"{ANDROID}versionCode")
    assert value("app", "versionName") == manifest.get(f"{ANDROID}versionName") == __version__
    for name, level in (("minSdk", verifying.MIN_SDK), ("targetSdk", verifying.TARGET_SDK)):
        assert value("app", name) == levels.get(f"{ANDROID}{name}Version") == str(level)
    assert set(strings("app", r"abiFilters \+=")) == set(native.ABIS)


def test_it_compiles_against_the_same_android() -> None:
    """Android 14, whose public API the checks of the APK take from the list for level 34."""
    assert pins.PUBLIC_34.name.endswith(f"-{value('app', 'compileSdk')}")
    assert pins.ANDROID_34.version.startswith("14-")
    assert Pom(POMS["app"]).properties["android.version"] == pins.ANDROID_34.version


def test_executorch_is_the_one_that_the_apks_build_unpacked() -> None:
    runtime = (recipe.TARGET / "work" / "runtime").resolve()
    assert folder("app", "jniLibs") == runtime / "lib"
    classes = only(r'fileTree\("([^"]*)"\)', "app")
    assert (SCRIPTS["app"].parent / classes).resolve() == runtime / "classes"
    api = only(r'compileOnly\(files\("(.*)"\)\)', "harness")
    assert (SCRIPTS["harness"].parent / api).resolve() == runtime / "classes" / "executorch.jar"
    stamp = only(r'check\(file\("(.*)"\)\.exists\(\)\)', "root")
    assert ANDROID_APP / stamp == runtime / "runtime.json"


def test_the_unpacked_executorch_lies_as_the_scripts_expect() -> None:
    runtime = recipe.TARGET / "work" / "runtime"
    if not runtime.exists():
        pytest.skip("the APK was not built here; run: python android_app/apk/build.py")
    assert (runtime / "classes" / "executorch.jar").is_file()
    assert (runtime / "runtime.json").is_file()
    assert {path.name for path in (runtime / "lib").iterdir()} == set(native.ABIS)
