package org.sparserec.app

import android.content.Context
import android.content.pm.ApplicationInfo
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import org.json.JSONException
import org.json.JSONObject
import org.sparserec.harness.Platform
import java.io.File
import java.io.IOException
import java.security.DigestInputStream
import java.security.MessageDigest
import java.util.zip.ZipFile

/** A phone or the Android emulator, read through public APIs. */
class AndroidPlatform(private val context: Context) : Platform {
    private val power = context.getSystemService(PowerManager::class.java)
    private val batteryManager = context.getSystemService(BatteryManager::class.java)
    private val app: ApplicationInfo = context.applicationInfo

    override val kind = if (Build.HARDWARE in EMULATORS) "emulator" else "phone"

    override val model = "${Build.MANUFACTURER} ${Build.MODEL}"

    /** Of the libraries that were installed, which is not always the device's first. */
    override val abi: String? = when (val isa = File(app.nativeLibraryDir.orEmpty()).name) {
        "arm64" -> "arm64-v8a"
        "x86_64" -> isa
        else -> Build.SUPPORTED_ABIS.firstOrNull()
    }

    override val sdk = Build.VERSION.SDK_INT

    override val debuggable = app.flags and ApplicationInfo.FLAG_DEBUGGABLE != 0

    override val os = "Android ${Build.VERSION.RELEASE} (${Build.DISPLAY})"

    /** What the APK's build wrote about the library that it put in. */
    override val runtime: String? = try {
        val text = context.assets.open("runtime.json").use {
            it.readBytes().toString(Charsets.UTF_8)
        }
        JSONObject(text).getString("runtime")
    } catch (_: IOException) {
        null
    } catch (_: JSONException) {
        null
    }

    /** The library stays inside an APK: the base one, or the split of this ABI. */
    override val runtimeSha256: String? by lazy {
        val apks = listOf(app.sourceDir) + app.splitSourceDirs.orEmpty()
        apks.firstNotNullOfOrNull { hashInside(it) }
    }

    override fun thermalStatus(): Int? =
        if (sdk >= Build.VERSION_CODES.Q) power.currentThermalStatus else null

    override fun battery(): Platform.Battery {
        val level = batteryManager.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)
        val current = batteryManager.getLongProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW)
        return Platform.Battery(
            level = level.takeIf { it in 0..100 },
            charging = batteryManager.isCharging,
            // The documented answer of a device that does not know.
            currentNow = current.takeIf { it != Long.MIN_VALUE },
        )
    }

    override fun nativeHeapKb(): Long? = Debug.getNativeHeapAllocatedSize() / 1024

    private fun hashInside(apk: String): String? = try {
        ZipFile(apk).use { zip ->
            zip.getEntry("lib/$abi/libexecutorch.so")?.let { entry ->
                val digest = MessageDigest.getInstance("SHA-256")
                DigestInputStream(zip.getInputStream(entry), digest).use { input ->
                    val buffer = ByteArray(1 shl 16)
                    while (input.read(buffer) >= 0) Unit
                }
                digest.digest().joinToString("") { "%02x".format(it) }
            }
        }
    } catch (_: IOException) {
        null
    }

    private companion object {
        /** The kernels' names of the boards that the emulator and Cuttlefish show. */
        val EMULATORS = setOf("goldfish", "ranchu", "cutf_cvm")
    }
}
