package org.sparserec.harness

import java.io.File
import java.io.IOException

/** What the machine tells about itself. What cannot be read is null. */
interface Platform {
    /** `virtual-device`, `phone` or `emulator`. */
    val kind: String
    val model: String?
    val abi: String?

    /** Android's API level. */
    val sdk: Int?
    val os: String?

    /** Whether the app may be debugged, which makes it slower. */
    val debuggable: Boolean? get() = null

    /** Name and version of the ExecuTorch library, and the hash of its file. */
    val runtime: String?
    val runtimeSha256: String?

    /** Android's scale: 0 none to 6 shutdown. */
    fun thermalStatus(): Int?

    fun battery(): Battery

    fun nativeHeapKb(): Long?

    /** [level] in percent; [currentNow] in the vendor's unit. */
    class Battery(val level: Int?, val charging: Boolean?, val currentNow: Long?)

    fun cores(): Int = Runtime.getRuntime().availableProcessors()

    fun memoryTotalKb(): Long? = Lines.of("/proc/meminfo").kb("MemTotal")

    /** Of each core, null if any is unreadable. */
    fun cpuFrequenciesKhz(): List<Long>? {
        val frequencies = (0 until cores()).map { core ->
            val file = File("/sys/devices/system/cpu/cpu$core/cpufreq/scaling_cur_freq")
            try {
                file.readText().trim().toLong()
            } catch (_: IOException) {
                null
            } catch (_: NumberFormatException) {
                null
            }
        }
        return frequencies.filterNotNull().takeIf { it.size == frequencies.size }
    }
}
