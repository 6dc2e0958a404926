package org.sparserec.app

import android.content.Context
import android.content.res.TypedArray
import android.graphics.Typeface
import android.graphics.drawable.GradientDrawable
import android.os.Build
import android.view.View
import android.view.ViewGroup
import android.view.ViewGroup.LayoutParams.MATCH_PARENT
import android.view.ViewGroup.LayoutParams.WRAP_CONTENT
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView

// The screens are few and simple, so they are built here and need neither layout files nor a
// generated R class.

fun Context.dp(value: Int): Int = (value * resources.displayMetrics.density + 0.5f).toInt()

/** A colour of the theme, which is what makes the screens follow light and dark. */
fun Context.themeColor(attribute: Int): Int {
    val found: TypedArray = obtainStyledAttributes(intArrayOf(attribute))
    return try {
        found.getColor(0, 0)
    } finally {
        found.recycle()
    }
}

fun Context.column(): LinearLayout = LinearLayout(this).apply {
    orientation = LinearLayout.VERTICAL
    layoutParams = LinearLayout.LayoutParams(MATCH_PARENT, WRAP_CONTENT)
}

fun Context.row(): LinearLayout = LinearLayout(this).apply {
    layoutParams = LinearLayout.LayoutParams(MATCH_PARENT, WRAP_CONTENT)
}

/** [content], scrolling, with the screen's margins. */
fun Context.page(content: View): ScrollView = ScrollView(this).apply {
    clipToPadding = false
    setPadding(dp(16), dp(8), dp(16), dp(24))
    addView(content)
}

/** A raised surface with margins of its own. */
fun Context.card(): LinearLayout = column().apply {
    background = GradientDrawable().apply {
        cornerRadius = dp(8).toFloat()
        setColor(themeColor(android.R.attr.colorBackgroundFloating))
    }
    elevation = dp(2).toFloat()
    setPadding(dp(16), dp(12), dp(16), dp(12))
    layoutParams =
        LinearLayout.LayoutParams(MATCH_PARENT, WRAP_CONTENT).apply {
            setMargins(0, dp(6), 0, dp(6))
        }
}

fun Context.text(value: String, sp: Float = 14f): TextView = TextView(this).apply {
    text = value
    textSize = sp
    setTextColor(themeColor(android.R.attr.textColorSecondary))
}

/** The name of a thing: larger, in the primary colour. */
fun Context.title(value: String): TextView = text(value, 16f).apply {
    setTextColor(themeColor(android.R.attr.textColorPrimary))
}

/** What stands above a section; screen readers can jump from one to the next. */
fun Context.heading(value: String): TextView = text(value).apply {
    typeface = Typeface.DEFAULT_BOLD
    setTextColor(themeColor(android.R.attr.colorAccent))
    setPadding(0, dp(16), 0, dp(2))
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) isAccessibilityHeading = true
}

/** A button without a box, as cards have them. */
fun Context.button(label: String, onClick: () -> Unit): Button =
    Button(this, null, android.R.attr.borderlessButtonStyle).apply {
        text = label
        setTextColor(themeColor(android.R.attr.colorAccent))
        setOnClickListener { onClick() }
        layoutParams = LinearLayout.LayoutParams(WRAP_CONTENT, WRAP_CONTENT)
        // The theme gives a button an inset; this puts its label in line with what is above it.
        setPadding(0, paddingTop, dp(16), paddingBottom)
        minWidth = 0
        minimumWidth = 0
    }

fun ViewGroup.add(vararg views: View) = views.forEach { addView(it) }
