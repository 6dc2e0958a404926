package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.Random

class PairFilterTest {
    @Test
    fun `no pair is missed and few others pass`() {
        val random = Random(3)
        val pairs = List(4000) { random.nextInt(100) to random.nextInt(1000) }.distinct()
        val sets = interactions(100, log = pairs.take(3000), seen = pairs.drop(3000))
        val filter = PairFilter(sets.seen, sets.log)
        assertTrue(pairs.all { (user, item) -> filter.mayHave(user, item) })
        assertTrue(pairs.all { (user, item) -> sets.isKnown(user, item) })
        val others = List(20_000) { random.nextInt(100) to random.nextInt(1000) } - pairs.toSet()
        val passing = others.count { (user, item) -> filter.mayHave(user, item) }
        assertTrue(passing < others.size / 10, "$passing of ${others.size}")
        assertTrue(others.none { (user, item) -> sets.isKnown(user, item) })
    }

    @Test
    fun `a filter of nothing lets nothing pass`() {
        val nothing = interactions(3, log = emptyList())
        assertTrue((0 until 3).none { PairFilter(nothing.seen).mayHave(it, 5) })
    }
}
