package org.sparserec.harness

/** An error that the user can act on: what is wrong, naming file and field, and what to do. */
class HarnessError(message: String, fix: String) : Exception("$message; $fix")

/** What to do about a bundle that does not hold what it must. */
const val EXPORT_AGAIN = "export the bundle again"
