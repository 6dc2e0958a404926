// For Android Studio. Not built in CI: see settings.gradle.kts. The same as app/pom.xml, whose tests
// are Maven's alone: they need what its build prepares.
import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.sparserec.app"
    compileSdk = 34

    defaultConfig {
        applicationId = "org.sparserec.app"
        minSdk = 26
        targetSdk = 34
        versionCode = 1
        versionName = "0.1.0"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }

    sourceSets.getByName("main") {
        manifest.srcFile("AndroidManifest.xml")
        java.setSrcDirs(listOf("src"))
        res.setSrcDirs(listOf("res"))
        assets.setSrcDirs(listOf("assets"))
        jniLibs.setSrcDirs(listOf("../target/apk/work/runtime/lib"))
    }

    // As published: the report names the library by its hash.
    packaging.jniLibs.keepDebugSymbols += "**/*.so"
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        // Without -Xjdk-release: Android's plugin compiles against the SDK and no JDK.
        freeCompilerArgs =
            listOf(
                "-Xlambdas=class",
                "-Xsam-conversions=class",
                "-Xstring-concat=inline",
                "-Werror",
            )
    }
}

dependencies {
    implementation(project(":harness"))
    implementation(fileTree("../target/apk/work/runtime/classes") { include("*.jar") })
}
