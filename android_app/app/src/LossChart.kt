package org.sparserec.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.view.View

/** A line through the losses of a run, between its smallest and its largest. */
class LossChart(context: Context) : View(context) {
    private val line = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        strokeWidth = context.dp(2).toFloat()
        color = context.themeColor(android.R.attr.colorAccent)
    }
    private val label = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        textSize = context.dp(11).toFloat()
        color = context.themeColor(android.R.attr.textColorSecondary)
    }
    private val path = Path()
    private var losses = emptyList<Float>()

    init {
        setPadding(0, context.dp(8), 0, 0)
        minimumHeight = context.dp(HEIGHT_DP)
    }

    fun show(losses: List<Float>) {
        this.losses = losses
        contentDescription = if (losses.isEmpty()) {
            "No loss yet"
        } else {
            "Loss from %.4f to %.4f".format(losses.first(), losses.last())
        }
        invalidate()
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) = setMeasuredDimension(
        getDefaultSize(suggestedMinimumWidth, widthMeasureSpec),
        resolveSize(suggestedMinimumHeight, heightMeasureSpec),
    )

    override fun onDraw(canvas: Canvas) {
        if (losses.size < 2) return
        val low = losses.min()
        val high = losses.max()
        val top = paddingTop + label.textSize * 2
        val bottom = height - label.textSize * 2
        val range = (high - low).takeIf { it > 0 } ?: 1f
        path.rewind()
        losses.forEachIndexed { k, loss ->
            val x = width * k / (losses.size - 1f)
            val y = bottom - (bottom - top) * (loss - low) / range
            if (k == 0) path.moveTo(x, y) else path.lineTo(x, y)
        }
        canvas.drawPath(path, line)
        canvas.drawText("%.4f".format(high), 0f, paddingTop + label.textSize, label)
        canvas.drawText("%.4f".format(low), 0f, height - label.textSize / 2, label)
    }

    private companion object {
        const val HEIGHT_DP = 120
    }
}
