package org.sparserec.harness

import java.io.IOException

/**
 * An error that the user can act on: what is wrong, naming file and field, and what to do. [cause]
 * is there where the machine failed, and not what a file holds.
 */
class HarnessError(val problem: String, fix: String, override val cause: IOException? = null) :
    Exception("$problem; $fix")

/** Gives errors of [action] another [fix] than the one that they come with. */
inline fun <T> advising(fix: String, action: () -> T): T = try {
    action()
} catch (error: HarnessError) {
    throw HarnessError(error.problem, fix, error.cause)
}

/** What to do about a bundle that does not hold what it must. */
const val EXPORT_AGAIN = "export the bundle again"
