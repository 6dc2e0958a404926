// For Android Studio. Not built in CI: see settings.gradle.kts. The same as android_app/pom.xml.
import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    id("org.jetbrains.kotlin.jvm")
}

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        freeCompilerArgs =
            listOf(
                "-Xjdk-release=8",
                "-Xlambdas=class",
                "-Xsam-conversions=class",
                "-Xstring-concat=inline",
                "-Werror",
            )
    }
    sourceSets.named("main") { kotlin.setSrcDirs(listOf("../../harness")) }
    sourceSets.named("test") { kotlin.setSrcDirs(listOf("../../../tests/android_app/harness")) }
}

dependencies {
    compileOnly(files("../../target/apk/work/runtime/classes/executorch.jar"))
    implementation("org.jetbrains.kotlinx:kotlinx-serialization-json-jvm:1.8.1")
    testImplementation("org.junit.jupiter:junit-jupiter:5.12.2")
    testRuntimeOnly("org.junit.platform:junit-platform-launcher")
}

tasks.test {
    useJUnitPlatform()
    systemProperty("vectors", file("../../../tests/vectors"))
}
