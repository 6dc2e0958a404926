"""What the code may use: each kind of mistake is compiled, dexed and must be found."""

from __future__ import annotations

from collections.abc import Callable

import androidapi
import dexfile
import pytest
import verifying

from .conftest import Built

Dexed = Callable[..., dexfile.Dex]
POWER = "android.os.PowerManager power"
GUARD = "android.os.Build.VERSION.SDK_INT >= 29"
THERMAL = "android/os/PowerManager.getCurrentThermalStatus()I"
LISTENER = "android/os/PowerManager$OnThermalStatusChangedListener"


def problems(dex: dexfile.Dex, versions: androidapi.Versions, **newer: int) -> list[str]:
    table = {THERMAL: 29, LISTENER: 29} | newer
    return androidapi.Checker(dex, versions, table).problems()


def one(dex: dexfile.Dex, versions: androidapi.Versions) -> str:
    (found,) = problems(dex, versions)
    return found


def test_what_android_8_has_is_fine(dexed: Dexed, versions: androidapi.Versions) -> None:
    """Inherited members, interfaces' methods, arrays, java.* and constants among it."""
    dex = dexed(
        A="""
        class A extends android.app.Activity implements Runnable {
            int[] numbers = {1};
            public void run() {
                setTitle("x"); finish(); hashCode(); numbers.clone();
                java.util.List<String> list = new java.util.ArrayList<>();
                for (String text : list) System.out.println(text + Math.floorMod(1, 2));
                try { new java.util.concurrent.Semaphore(1).acquire(); }
                catch (InterruptedException error) { throw new IllegalStateException(error); }
            }
        }"""
    )
    assert problems(dex, versions) == []
    assert dex.classes["A"].parents == ["android/app/Activity", "java/lang/Runnable"]
    caught = dexfile.Reference("java/lang/InterruptedException", "", "catch")
    assert caught in dex.classes["A"].methods[-1].references


def test_unguarded_newer_method(dexed: Dexed, versions: androidapi.Versions) -> None:
    dex = dexed(A=f"class A {{ int f({POWER}) {{ return power.getCurrentThermalStatus(); }} }}")
    said = one(dex, versions)
    assert said.startswith(f"{THERMAL}: came with API 29, and no comparison")
    assert "(used in A.f(Landroid/os/PowerManager;)I)" in said


def test_guarded_newer_method(dexed: Dexed, versions: androidapi.Versions) -> None:
    call = "power.getCurrentThermalStatus()"
    dex = dexed(A=f"class A {{ int f({POWER}) {{ return {GUARD} ? {call} : 0; }} }}")
    assert problems(dex, versions) == []


def test_guard_for_too_low_a_version(dexed: Dexed, versions: androidapi.Versions) -> None:
    guard, call = GUARD.replace("29", "28"), "power.getCurrentThermalStatus()"
    dex = dexed(A=f"class A {{ int f({POWER}) {{ return {guard} ? {call} : 0; }} }}")
    assert "came with API 29" in one(dex, versions)


@pytest.mark.parametrize(("guard", "clean"), [(GUARD, True), ("power != null", False)])
def test_a_class_of_a_newer_interface_is_guarded_where_it_is_made(
    dexed: Dexed, versions: androidapi.Versions, guard: str, clean: bool
) -> None:
    dex = dexed(
        A=f"class A {{ Object f({POWER}) {{ if ({guard}) return new B(); return null; }} }}",
        B="class B implements android.os.PowerManager.OnThermalStatusChangedListener {"
        "  public void onThermalStatusChanged(int status) {} }",
    )
    found = problems(dex, versions)
    assert (found == []) is clean
    assert clean or found[0].startswith(f"{LISTENER}: came with API 29")


def test_newer_api_must_be_in_the_table(dexed: Dexed, versions: androidapi.Versions) -> None:
    """An inherited method goes by the class that declares it."""
    dex = dexed(
        A=f"""class A extends android.widget.TextView {{
        A(android.content.Context context) {{ super(context); }}
        void f() {{ if ({GUARD}) setAccessibilityHeading(true); }} }}"""
    )
    assert "add android/view/View.setAccessibilityHeading(Z)V to newer_api.tsv" in one(
        dex, versions
    )


def test_newer_java_is_refused_guarded_or_not(dexed: Dexed, versions: androidapi.Versions) -> None:
    """There is no desugaring here."""
    dex = dexed(A=f"class A {{ Object f() {{ return {GUARD} ? java.util.List.of() : null; }} }}")
    assert one(dex, versions).startswith("java/util/List.of()Ljava/util/List;: is newer than")


def test_hidden_api_is_refused(dexed: Dexed, versions: androidapi.Versions) -> None:
    """It compiles, because android-all has it."""
    dex = dexed(A='class A { Object f() { return android.os.ServiceManager.getService("x"); } }')
    found = problems(dex, versions)
    assert found
    assert all("is hidden API" in text for text in found)


def test_hidden_member_of_a_public_class_is_refused(
    dexed: Dexed, versions: androidapi.Versions
) -> None:
    dex = dexed(A="class A { int f() { return android.os.UserHandle.myUserId(); } }")
    assert one(dex, versions).startswith("android/os/UserHandle.myUserId()I: is hidden API")


def test_what_is_nowhere_is_refused(dexed: Dexed, versions: androidapi.Versions) -> None:
    """As when a library was left out of the jar."""
    dex = dexed(A="class A { java.awt.Point f() { return new java.awt.Point(); } }")
    assert any("is in no Android" in text for text in problems(dex, versions))


def test_lambdas_by_invokedynamic_are_refused(dexed: Dexed, versions: androidapi.Versions) -> None:
    """The compiler of dex files takes them; Android has no LambdaMetafactory."""
    dex = dexed(A="class A { Runnable f() { return () -> {}; } }")
    found: list[str] = []
    verifying.check_code(dex, versions, found)
    assert "A.f()Ljava/lang/Runnable;: has invoke-custom" in found


def test_every_line_of_the_table_is_used(built: Built) -> None:
    assert sorted(androidapi.read_newer()) == built.record["newer_api"]


def test_public_lists_are_public(versions: androidapi.Versions) -> None:
    for api in (versions.public_26, versions.public_34):
        assert api.find("android/os/ServiceManager") is None
        assert api.find("com/android/internal/os/Zygote") is None
        activity = api.find("android/app/Activity")
        assert activity is not None
        assert "onCreate(Landroid/os/Bundle;)V" in activity[1]
    assert versions.all_26.find("android/os/ServiceManager") is not None
