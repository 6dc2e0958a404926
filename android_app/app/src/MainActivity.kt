package org.sparserec.app

import android.Manifest
import android.app.Activity
import android.app.AlertDialog
import android.content.Intent
import android.content.pm.PackageManager
import android.os.Build
import android.os.Bundle
import android.view.View
import android.widget.LinearLayout
import java.io.File

/** Lists the bundles, starts and stops training, and shows how it goes and what came of it. */
class MainActivity : Activity() {
    private lateinit var live: LiveCard
    private lateinit var lists: LinearLayout
    private val watcher = ::follow
    private var wasRunning = false

    /**
     * The bundle to train once the user has answered about notifications, and whether afresh. It is
     * saved, because turning the phone meanwhile makes another activity, which gets the answer.
     */
    private var asked: Pair<String, Boolean>? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        asked = savedInstanceState?.getString(ASKED)
            ?.let { it to savedInstanceState.getBoolean(ASKED_FRESH) }
        live = LiveCard(this) { RunService.stop(this) }
        lists = column()
        setContentView(page(column().apply { add(live, lists) }))
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        asked?.let { (bundleId, fresh) ->
            outState.putString(ASKED, bundleId)
            outState.putBoolean(ASKED_FRESH, fresh)
        }
    }

    override fun onStart() {
        super.onStart()
        LiveRun.watch(watcher)
        live.show(LiveRun.current)
        loadLists()
    }

    override fun onStop() {
        LiveRun.unwatch(watcher)
        super.onStop()
    }

    /** The lists change only when a run begins or ends. */
    private fun follow() {
        val run = LiveRun.current
        live.show(run)
        if ((run?.isRunning == true) != wasRunning) loadLists()
    }

    private fun loadLists() {
        wasRunning = LiveRun.current?.isRunning == true
        Background.load(this, { Contents.read(this) }, ::showLists)
    }

    private fun showLists(contents: Contents) {
        lists.removeAllViews()
        if (contents.problem != null) {
            lists.add(text(contents.problem))
        } else {
            lists.add(heading("Bundles"))
            if (contents.bundles.isEmpty()) lists.add(text(NO_BUNDLES))
            contents.bundles.forEach { lists.add(bundleCard(it)) }
        }
        if (contents.summary != null) {
            lists.add(heading("Last report"), reportCard(contents.summary, contents.report!!))
        }
        lists.add(button("Third-party notices") { open(NoticesActivity::class.java) })
    }

    private fun bundleCard(bundle: StoredBundle): View = card().apply {
        add(title(bundle.id))
        if (bundle.problem != null) {
            add(text(bundle.problem))
        } else {
            add(text(bundle.description), text("${bundle.done} of ${bundle.steps} steps done"))
            if (!wasRunning) add(trainButton(bundle))
        }
    }

    private fun trainButton(bundle: StoredBundle): View = when {
        bundle.isFinished -> button("Start over") { confirmStartOver(bundle) }
        bundle.done > 0 -> button("Resume") { askThenTrain(bundle, fresh = false) }
        else -> button("Train") { askThenTrain(bundle, fresh = false) }
    }

    private fun reportCard(summary: ReportSummary, file: File): View = card().apply {
        add(title(summary.headline))
        val shown = summary.rows.filter { (name, _) -> name in SHOWN }
        shown.forEach { (name, value) -> add(text("$name: $value")) }
        val actions = row()
        actions.add(
            button("Open") { open(ReportActivity::class.java) },
            button("Share") { startActivity(ReportProvider.shareIntent(file)) },
        )
        add(actions)
    }

    private fun open(screen: Class<out Activity>) = startActivity(Intent(this, screen))

    private fun confirmStartOver(bundle: StoredBundle) {
        AlertDialog.Builder(this)
            .setTitle("Start over?")
            .setMessage(
                "What was trained from ${bundle.id} on this phone is removed. Its reports stay.",
            )
            .setPositiveButton("Start over") { _, _ -> askThenTrain(bundle, fresh = true) }
            .setNegativeButton(android.R.string.cancel, null)
            .show()
    }

    /** Training does not need the permission; only its notification does. */
    private fun askThenTrain(bundle: StoredBundle, fresh: Boolean) {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU && !mayNotify()) {
            asked = bundle.id to fresh
            requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
        } else {
            train(bundle.id, fresh)
        }
    }

    override fun onRequestPermissionsResult(
        requestCode: Int,
        permissions: Array<String>,
        grantResults: IntArray,
    ) {
        asked?.let { (bundleId, fresh) -> train(bundleId, fresh) }
        asked = null
    }

    private fun mayNotify(): Boolean = PackageManager.PERMISSION_GRANTED ==
        checkSelfPermission(Manifest.permission.POST_NOTIFICATIONS)

    private fun train(bundleId: String, fresh: Boolean) =
        RunService.train(this, SharedStorage.of(this).newRun(bundleId, fresh))

    private companion object {
        const val ASKED = "asked"
        const val ASKED_FRESH = "asked_fresh"
        const val NO_BUNDLES =
            "None yet. Connect this phone to a computer and run there: sparserec deploy BUNDLE"
        val SHOWN = setOf("Error", "Bundle", "Steps", "Recall@20")
    }
}
