// For Android Studio. Not built in CI: see settings.gradle.kts.
// Kotlin 2.1.21 takes Gradle up to 8.12.1 and Android's plugin up to 8.7.2, which needs Gradle 8.9.
plugins {
    id("com.android.application") version "8.7.2" apply false
    id("org.jetbrains.kotlin.android") version "2.1.21" apply false
    id("org.jetbrains.kotlin.jvm") version "2.1.21" apply false
}

allprojects {
    layout.buildDirectory = rootProject.file("target/gradle/$name")
}

check(file("target/apk/work/runtime/runtime.json").exists()) {
    "ExecuTorch is not unpacked yet; run: python android_app/apk/build.py"
}
