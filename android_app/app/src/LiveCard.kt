package org.sparserec.app

import android.content.Context
import android.view.View
import android.view.ViewGroup.LayoutParams.MATCH_PARENT
import android.view.ViewGroup.LayoutParams.WRAP_CONTENT
import android.widget.LinearLayout
import android.widget.ProgressBar

/** The run that goes on, or has just ended: how far, the loss, the time of a step. */
class LiveCard(context: Context, onStop: () -> Unit) : LinearLayout(context) {
    private val headline = context.title("")
    private val detail = context.text("")
    private val progress = ProgressBar(context, null, android.R.attr.progressBarStyleHorizontal)
    private val chart = LossChart(context)
    private val stop = context.button("Stop", onStop)

    init {
        val card = context.card()
        card.add(headline, progress, detail, chart, stop)
        progress.layoutParams = LayoutParams(MATCH_PARENT, WRAP_CONTENT)
        addView(card)
    }

    fun show(run: LiveRun?) {
        visibility = if (run == null) View.GONE else View.VISIBLE
        if (run == null) return
        headline.text = when {
            run.isRunning -> "Training ${run.bundleId}: ${run.phase.replace('_', ' ')}"
            run.ended!!.error == null -> "Training is done"
            else -> "Ended early: ${run.ended.error}"
        }
        progress.isIndeterminate = run.isRunning && run.step == null
        progress.max = run.steps ?: 1
        progress.progress = run.step ?: 0
        detail.text = listOfNotNull(
            run.step?.let { "step $it of ${run.steps}" },
            run.loss?.let { "loss %.4f".format(it) },
            run.msPerStep?.let { "%.2f ms a step".format(it) },
        ).joinToString(", ")
        chart.show(run.losses)
        stop.visibility = if (run.isRunning) View.VISIBLE else View.GONE
    }
}
