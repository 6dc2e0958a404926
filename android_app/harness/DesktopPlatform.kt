package org.sparserec.harness

import java.io.File
import java.io.IOException

/** A desktop JVM on Linux, with the Android library built by `android_app/runtime/build.py`. */
class DesktopPlatform : Platform {
    override val kind = "virtual-device"

    override val model: String? = Lines.of("/proc/cpuinfo")["model name"]

    override val abi: String? = when (val arch = System.getProperty("os.arch")) {
        "amd64" -> "x86_64"
        "aarch64" -> "arm64-v8a"
        else -> arch
    }

    override val sdk: Int? = null

    override val os = "${System.getProperty("os.name")} ${System.getProperty("os.version")}"

    override val runtime: String?

    override val runtimeSha256: String?

    init {
        val description = runtimeDescription()
        runtime = description?.text("runtime")
        runtimeSha256 = description?.child("files")?.text("lib/android/libexecutorch.so")
    }

    override fun thermalStatus(): Int? = null

    override fun battery() = Platform.Battery(null, null, null)

    override fun nativeHeapKb(): Long? = null

    /** `runtime.json`, which the build leaves beside the library directory. */
    private fun runtimeDescription(): Fields? {
        val libraries = System.getProperty("java.library.path").orEmpty()
        val library = File(libraries.substringBefore(File.pathSeparator))
        val file = library.resolveSibling("runtime.json")
        return try {
            Fields.parse(file.path, file.readBytes())
        } catch (_: IOException) {
            null
        }
    }
}
