package org.sparserec.app

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.sparserec.harness.Options

/** Runs in a process of its own without the native library, as an APK of the wrong ABI would. */
class MissingLibraryTest : AppTest() {
    @Test
    fun `a missing native library is an error of the run, not the end of the process`() {
        push("short")
        val values = values("short")
        repeat(2) {
            val error = Session(app, Options.of(values)) { _, _, _, _ -> }.run()!!
            assertTrue(error, "the ExecuTorch library cannot be loaded" in error)
            assertTrue(error, "install the APK of its ABI" in error)
            assertEquals(error, report(values).getString("error"))
        }
    }
}
