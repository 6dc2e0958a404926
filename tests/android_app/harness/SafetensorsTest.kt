package org.sparserec.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource
import java.nio.ByteBuffer
import java.nio.ByteOrder.LITTLE_ENDIAN
import java.nio.file.Files
import java.nio.file.Path
import java.util.Random

class SafetensorsTest {
    @TempDir
    lateinit var directory: Path

    private val path get() = directory.resolve("x.safetensors")

    private fun writeSample() = Safetensors.write(
        path,
        listOf(
            NamedTensor("numbers", DType.I32, listOf(3), ints(1, -2, 3)),
            NamedTensor("empty", DType.F32, listOf(0, 4), floats()),
            NamedTensor("letters", DType.U8, listOf(5), bytes(1, 2, 3, 4, 255)),
            NamedTensor("values", DType.F32, listOf(1, 2), floats(0.5f, -1e30f)),
        ),
    ) { mapOf("hash" to it, "quote" to "a \"b\"") }

    @Test
    fun `what is written is read`() {
        writeSample()
        val file = Safetensors.open(path)
        assertEquals(sha256(path, file.dataStart), file.metadata["hash"])
        assertEquals("a \"b\"", file.metadata["quote"])
        assertEquals(-2, file.vector("numbers", DType.I32).getInt(4))
        assertEquals(-1, file.vector("letters", DType.U8).get(4))
        assertEquals(-1e30f, file.map("values", DType.F32, 1, 2).getFloat(4))
        assertEquals(0, file.map("empty", DType.F32, 0, 4).capacity())
        assertEquals(0, file.dataStart % 8)
        assertEquals(listOf(path), Files.list(directory).use { it.toArray().toList() })
    }

    @Test
    fun `changes of a private mapping do not reach the file`() {
        writeSample()
        val file = Safetensors.open(path)
        val before = sha256(path)
        val mapped = file.map("values", DType.F32, 1, 2, writable = true)
        mapped.putFloat(0, 7f)
        assertEquals(7f, mapped.getFloat(0))
        assertEquals(before, sha256(path))
    }

    @Test
    fun `a file that cannot be read or mapped is told from one that is wrong`() {
        writeSample()
        val file = Safetensors.open(path)
        val wrong = assertThrows(HarnessError::class.java) { file.map("numbers", DType.F32, 3) }
        assertNull(wrong.cause)
        Files.delete(path)
        for (access in listOf({ file.map("numbers", DType.I32, 3) }, { Safetensors.open(path) })) {
            assertNotNull(assertThrows(HarnessError::class.java) { access() }.cause)
        }
    }

    @Test
    fun `a wrong dtype, shape or name is named`() {
        writeSample()
        val file = Safetensors.open(path)
        for ((message, access) in mapOf(
            "tensor numbers: expected F32 [3], found I32 [3]" to
                { file.map("numbers", DType.F32, 3) },
            "tensor values: expected F32 [2], found F32 [1, 2]" to
                { file.map("values", DType.F32, 2) },
            "tensor values: expected one dimension" to { file.vector("values", DType.F32) },
            "tensor other: missing" to { file.vector("other", DType.F32) },
        )) {
            val error = assertThrows(HarnessError::class.java) { access() }
            assertTrue(message in error.message!!, error.message)
            assertTrue(path.toString() in error.message!!)
        }
    }

    @ParameterizedTest
    @ValueSource(
        strings = [
            """[]""",
            """{"a":1}""",
            """{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}""",
            """{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""",
            """{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""",
            """{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}""",
            """{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}""",
            """{"a":{"dtype":"F32","shape":[2]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}""",
            """{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                "b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""",
            """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"k":1}}""",
        ],
    )
    fun `a bad header is refused`(header: String) {
        Files.write(path, file(header.length.toLong(), header.toByteArray() + ByteArray(8)))
        val error = assertThrows(HarnessError::class.java) { Safetensors.open(path) }
        assertTrue(error.message!!.startsWith("$path"), error.message)
    }

    @ParameterizedTest
    @ValueSource(longs = [0, 1, -1, 100, 65_537, 1L shl 31, Long.MAX_VALUE, Long.MIN_VALUE])
    fun `a header length out of bounds is refused`(length: Long) {
        Files.write(path, file(length, ByteArray(if (length == 65_537L) 70_000 else 20) { 32 }))
        assertThrows(HarnessError::class.java) { Safetensors.open(path) }
    }

    @ParameterizedTest
    @ValueSource(strings = ["[", "{\"a\":", "{\"\\\"\":["])
    fun `a header of nested lists or objects does not end the stack`(nested: String) {
        val header = nested.repeat(60_000 / nested.length)
        Files.write(path, file(header.length.toLong(), header.toByteArray()))
        assertThrows(HarnessError::class.java) { Safetensors.open(path) }
    }

    /** Any damage is either noticed, or leaves every access inside the file. */
    @Test
    fun `files with random damage never crash`() {
        writeSample()
        val whole = Files.readAllBytes(path)
        val random = Random(1)
        var refused = 0
        repeat(2000) {
            var data = whole.copyOf()
            repeat(1 + random.nextInt(3)) {
                when (random.nextInt(3)) {
                    0 -> data[random.nextInt(data.size)] = random.nextInt().toByte()
                    1 -> data = data.copyOf(1 + random.nextInt(data.size))
                    else -> data += ByteArray(random.nextInt(9))
                }
            }
            Files.write(path, data)
            try {
                val file = Safetensors.open(path)
                val numbers = file.vector("numbers", DType.I32).asIntBuffer()
                for (k in 0 until numbers.capacity()) numbers.get(k)
                file.map("values", DType.F32, 1, 2, writable = true).getFloat(4)
            } catch (_: HarnessError) {
                refused++
            }
        }
        assertTrue(refused in 1000..1999, "$refused refused")
    }

    private fun file(length: Long, rest: ByteArray): ByteArray =
        ByteBuffer.allocate(8).order(LITTLE_ENDIAN).putLong(length).array() + rest
}
