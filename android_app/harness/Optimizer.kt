package org.sparserec.harness

/**
 * What a step's numbers and state are, by `training.optimizer`: docs/formats.md section 2.2. The
 * rule itself is in the programs.
 *
 * @param states names of its numbers for each value, in the order of the programs' inputs
 */
enum class Optimizer(val states: List<String>) {
    SGD(emptyList()),
    MOMENTUM(listOf("m")),
    ADAGRAD(listOf("v")),
    ADAM(listOf("m", "v")),
    ;

    val label = name.lowercase()

    /** `lr` of the 0-based [step], for what the manifest calls `learning_rate`. */
    fun rate(learningRate: Double, step: Int): Float = when (this) {
        ADAM -> learningRate / (1 - StrictMath.pow(FIRST_DECAY, step + 1.0))
        else -> learningRate
    }.toFloat()

    /** `correction` of the 0-based [step]; 1 where there is none. */
    fun correction(step: Int): Float = when (this) {
        ADAM -> 1 - StrictMath.pow(SECOND_DECAY, step + 1.0)
        else -> 1.0
    }.toFloat()

    private companion object {
        const val FIRST_DECAY = 0.9
        const val SECOND_DECAY = 0.999
    }
}
