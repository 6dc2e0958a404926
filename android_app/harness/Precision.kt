package org.sparserec.harness

/** How a table's values are stored: docs/formats.md section 1.7. All arithmetic is float32. */
enum class Precision(val dtype: DType) {
    FLOAT32(DType.F32),
    FLOAT16(DType.F16),
    INT8(DType.I8),
    ;

    val label = name.lowercase()
}

/** IEEE 754 binary16, without `Float.float16ToFloat`, which needs Java 20. */
object Half {
    private const val SIGN = 0x8000
    private const val MAGNITUDE = 0x7fff
    private const val INFINITY = 0x7c00
    private const val LARGEST = 65504f
    private const val LARGEST_BITS = 0x7bff
    private const val NOT_A_NUMBER = 0x7e00
    private const val DROPPED_BITS = 13

    /** What the exponents' biases differ by, in the place of a float's exponent. */
    private const val BIAS = 112 shl 23

    /** The smallest that is not subnormal, 2^-14. */
    private const val SMALLEST_NORMAL = 6.1035156e-5f

    /** One more than a half's smallest number changes the last bit of this one. */
    private const val HALF = 0.5f

    fun decode(half: Short): Float {
        val sign = half.toInt() and SIGN shl 16
        val magnitude = half.toInt() and MAGNITUDE
        val bits = when {
            magnitude >= INFINITY -> (magnitude shl DROPPED_BITS) + 2 * BIAS
            magnitude >= 1 shl 10 -> (magnitude shl DROPPED_BITS) + BIAS
            else -> (Float.fromBits(HALF.toRawBits() + magnitude) - HALF).toRawBits()
        }
        return Float.fromBits(sign or bits)
    }

    /** To nearest, ties to even; beyond the largest finite number, to it. */
    fun encode(value: Float): Short {
        val bits = value.toRawBits()
        val magnitude = Float.fromBits(bits and Int.MAX_VALUE)
        val half = when {
            magnitude.isNaN() -> NOT_A_NUMBER
            magnitude >= LARGEST -> LARGEST_BITS
            magnitude < SMALLEST_NORMAL -> (magnitude + HALF).toRawBits() - HALF.toRawBits()
            else -> rounded(magnitude.toRawBits()) - (BIAS ushr DROPPED_BITS)
        }
        return (bits ushr 16 and SIGN or half).toShort()
    }

    /** Adds a little less than half of what is dropped, and a whole half where that makes even. */
    private fun rounded(bits: Int): Int {
        val odd = bits ushr DROPPED_BITS and 1
        return bits + (1 shl DROPPED_BITS - 1) - 1 + odd ushr DROPPED_BITS
    }
}
