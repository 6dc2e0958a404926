package org.sparserec.app

import android.app.Activity
import android.os.Bundle
import android.view.Menu
import android.view.MenuItem
import android.widget.LinearLayout
import java.io.File

/** The last report: what it says in words, and a way to hand the file on. */
class ReportActivity : Activity() {
    private lateinit var content: LinearLayout
    private var report: File? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        actionBar?.setDisplayHomeAsUpEnabled(true)
        content = column()
        setContentView(page(content))
        Background.load(this, { Contents.read(this) }, ::show)
    }

    private fun show(contents: Contents) {
        report = contents.report
        invalidateOptionsMenu()
        val summary = contents.summary
        if (summary == null) {
            content.add(text(contents.problem ?: "There is no report that can be read."))
            return
        }
        val card = card()
        for ((name, value) in summary.rows) {
            card.add(text(name, 12f), title(value).apply { setPadding(0, 0, 0, dp(10)) })
        }
        content.add(heading(summary.headline), card)
    }

    override fun onCreateOptionsMenu(menu: Menu): Boolean {
        if (report != null) menu.add("Share").setShowAsAction(MenuItem.SHOW_AS_ACTION_ALWAYS)
        return true
    }

    override fun onOptionsItemSelected(item: MenuItem): Boolean {
        when (item.itemId) {
            android.R.id.home -> finish()
            else -> report?.let { startActivity(ReportProvider.shareIntent(it)) }
        }
        return true
    }
}
