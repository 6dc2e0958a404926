package org.sparserec.app

import android.content.ClipData
import android.content.ContentProvider
import android.content.ContentValues
import android.content.Intent
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import org.sparserec.harness.HarnessError
import java.io.File
import java.io.FileNotFoundException

/** Lets the app that the user shares a report with read that report, and nothing else. */
class ReportProvider : ContentProvider() {
    override fun onCreate() = true

    override fun getType(uri: Uri): String = MIME_TYPE

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        if (mode != "r") throw SecurityException("reports are read only")
        return ParcelFileDescriptor.open(file(uri), ParcelFileDescriptor.MODE_READ_ONLY)
    }

    /** The name and the size, which is what the other app may ask for. */
    override fun query(
        uri: Uri,
        projection: Array<String>?,
        selection: String?,
        selectionArgs: Array<String>?,
        sortOrder: String?,
    ): Cursor {
        val file = file(uri)
        val known = mapOf(
            OpenableColumns.DISPLAY_NAME to "sparserec-${file.parentFile!!.name}.json",
            OpenableColumns.SIZE to file.length(),
        )
        val columns = projection?.filter { it in known } ?: known.keys
        return MatrixCursor(columns.toTypedArray()).apply { addRow(columns.map { known[it] }) }
    }

    private fun file(uri: Uri): File {
        val segments = uri.pathSegments
        val report = try {
            if (segments.size == 2 && segments[1] == SharedStorage.REPORT) {
                SharedStorage.of(context!!).report(segments[0])
            } else {
                null
            }
        } catch (_: HarnessError) {
            null
        }
        return report ?: throw FileNotFoundException("$uri is no report")
    }

    override fun insert(uri: Uri, values: ContentValues?): Uri =
        throw UnsupportedOperationException()

    override fun update(
        uri: Uri,
        values: ContentValues?,
        selection: String?,
        selectionArgs: Array<String>?,
    ): Int = throw UnsupportedOperationException()

    override fun delete(uri: Uri, selection: String?, selectionArgs: Array<String>?): Int =
        throw UnsupportedOperationException()

    companion object {
        private const val AUTHORITY = "org.sparserec.app.reports"
        private const val MIME_TYPE = "application/json"

        /** What opens the system's share sheet for the report [file]. */
        fun shareIntent(file: File): Intent {
            val uri = Uri.Builder().scheme("content").authority(AUTHORITY)
                .appendPath(file.parentFile!!.name).appendPath(file.name).build()
            val send = Intent(Intent.ACTION_SEND)
                .setType(MIME_TYPE)
                .putExtra(Intent.EXTRA_STREAM, uri)
                .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
            send.clipData = ClipData.newRawUri(file.name, uri)
            return Intent.createChooser(send, null)
        }
    }
}
