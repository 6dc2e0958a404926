package org.sparserec.app

import android.content.Context
import org.sparserec.harness.HarnessError
import java.io.File

/** What the shared storage holds at a moment, as the screens show it. */
class Contents private constructor(
    val bundles: List<StoredBundle>,
    val report: File?,
    val summary: ReportSummary?,
    val problem: String?,
) {
    companion object {
        fun read(context: Context): Contents = try {
            val storage = SharedStorage.of(context)
            val report = storage.lastReport()
            val isRunning = LiveRun.current?.isRunning == true
            Contents(
                storage.bundles(),
                report,
                report?.let { ReportSummary.read(it, isRunning) },
                null,
            )
        } catch (error: HarnessError) {
            Contents(emptyList(), null, null, error.message)
        }
    }
}
