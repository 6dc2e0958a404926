// For Android Studio. Not built in CI: Google's Maven and Gradle itself cannot be had there. What
// ships is made by apk/build.py; tests/android_app/test_gradle.py keeps the two in step.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "sparserec"
include(":harness", ":app")
// Not beside its sources: Maven would compile the script with them.
project(":harness").projectDir = file("gradle/harness")
