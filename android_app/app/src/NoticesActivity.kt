package org.sparserec.app

import android.app.Activity
import android.os.Bundle
import android.view.MenuItem

/** Who made what the app is built from, and under which licences. */
class NoticesActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        actionBar?.setDisplayHomeAsUpEnabled(true)
        val notices = assets.open("notices.txt").use { it.readBytes().toString(Charsets.UTF_8) }
        setContentView(page(text(notices, 12f)))
    }

    override fun onOptionsItemSelected(item: MenuItem): Boolean {
        finish()
        return true
    }
}
