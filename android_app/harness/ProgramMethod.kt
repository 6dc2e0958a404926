package org.sparserec.harness

import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.ExecutorchRuntimeException
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer

/** One method with its inputs bound once: tensors on direct buffers share memory with them. */
internal class ProgramMethod(
    private val module: Module,
    program: Manifest.Program,
    private val name: String,
) {
    private val label = "${program.file}: method $name"
    private val spec = program.method(name)
    private val tensors = HashMap<String, EValue>()
    private val inputs by lazy {
        Array(spec.inputs.size) { tensors[spec.inputs[it].name] ?: unknown(spec.inputs[it]) }
    }

    private var checked = false

    init {
        attempt("$label cannot be loaded") { module.loadMethod(name) }
    }

    /** Makes the input of this role, which must have this shape, and returns its buffer. */
    fun input(role: String, vararg shape: Int): FloatBuffer {
        check("input", inputsOf(role).singleOrNull(), role, "float32", shape)
        return floats(inputsOf(role).single())
    }

    /** The same, but the buffer takes memory only once it is written: not all runs do. */
    fun rareInput(role: String, vararg shape: Int): FloatBuffer {
        check("input", inputsOf(role).singleOrNull(), role, "float32", shape)
        val input = inputsOf(role).single()
        val bytes = Math.multiplyExact(Float.SIZE_BYTES, input.numel())
        return floats(input, zeros(bytes).asFloatBuffer())
    }

    /** The same for int32. */
    fun ints(role: String, vararg shape: Int): IntBuffer {
        val input = inputsOf(role).singleOrNull()
        check("input", input, role, "int32", shape)
        val buffer = Tensor.allocateIntBuffer(input!!.numel())
        tensors[input.name] = EValue.from(Tensor.fromBlob(buffer, input.sizes()))
        return buffer
    }

    /** The same for as many inputs as have this role. */
    fun inputs(role: String, vararg shape: Int): List<FloatBuffer> {
        inputsOf(role).forEach { check("input", it, role, "float32", shape) }
        return inputsOf(role).map { floats(it) }
    }

    /** Makes the inputs of this role share memory with [buffers], which are theirs in order. */
    fun bind(role: String, buffers: List<ByteBuffer>) {
        val found = inputsOf(role)
        if (found.size != buffers.size) {
            throw HarnessError(
                "manifest.json: method $name: ${found.size} inputs of role $role, " +
                    "expected ${buffers.size}",
                UPDATE,
            )
        }
        for ((input, buffer) in found.zip(buffers)) {
            check(
                "input",
                input,
                role,
                "float32",
                intArrayOf(
                    buffer.capacity() / Float.SIZE_BYTES,
                ),
            )
            tensors[input.name] =
                EValue.from(Tensor.fromBlob(buffer.asFloatBuffer(), input.sizes()))
        }
    }

    private fun floats(
        input: Manifest.TensorSpec,
        buffer: FloatBuffer = Tensor.allocateFloatBuffer(input.numel()),
    ): FloatBuffer {
        tensors[input.name] = EValue.from(Tensor.fromBlob(buffer, input.sizes()))
        return buffer
    }

    private fun inputsOf(role: String) = spec.inputs.filter { it.role == role }

    /** The place among the outputs of the output of this role. */
    fun output(role: String, dtype: String, vararg shape: Int): Int {
        check("output", spec.outputs.find { it.role == role }, role, dtype, shape)
        return spec.outputs.indexOfFirst { it.role == role }
    }

    /** The places among the outputs of [count] outputs of this role. */
    fun outputs(role: String, count: Int, vararg shape: Int): IntArray {
        val found = spec.outputs.indices.filter { spec.outputs[it].role == role }
        for (k in 0 until count) {
            check(
                "output",
                found.getOrNull(k)?.let {
                    spec.outputs[it]
                },
                role,
                "float32",
                shape,
            )
        }
        return found.take(count).toIntArray()
    }

    fun run(): Array<EValue> {
        val outputs = try {
            module.execute(name, *inputs)
        } catch (error: ExecutorchRuntimeException) {
            throw explained("$label failed", error)
        }
        if (!checked) checkOutputs(outputs)
        return outputs
    }

    /** Outputs are read by the manifest's places, dtypes and shapes: the first must have them. */
    private fun checkOutputs(outputs: Array<EValue>) {
        val found = outputs.map { if (it.isTensor) described(it.toTensor()) else "no tensor" }
        val wanted = spec.outputs.map { "${it.dtype} ${it.shape}" }
        if (found != wanted) {
            throw HarnessError("$label has outputs $found, manifest.json says $wanted", UPDATE)
        }
        checked = true
    }

    private fun described(tensor: Tensor): String {
        val dtype = when (tensor.dtype()) {
            DType.FLOAT -> "float32"
            DType.INT64 -> "int64"
            else -> tensor.dtype().toString()
        }
        return "$dtype ${tensor.shape().asList()}"
    }

    private fun check(
        kind: String,
        found: Manifest.TensorSpec?,
        role: String,
        dtype: String,
        shape: IntArray,
    ) {
        val wanted = shape.map { it.toLong() }
        if (found?.dtype != dtype || found.shape != wanted) {
            val shown = if (found == null) "none" else "${found.dtype} ${found.shape}"
            throw HarnessError(
                "manifest.json: method $name: $kind of role $role: expected $dtype $wanted, " +
                    "found $shown",
                UPDATE,
            )
        }
    }

    private fun unknown(input: Manifest.TensorSpec): Nothing = throw HarnessError(
        "manifest.json: method $name: input ${input.name} has the unknown role ${input.role}",
        UPDATE,
    )
}

internal fun Manifest.Program.method(name: String): Manifest.Method = methods[name]
    ?: throw HarnessError("manifest.json: programs: $file has no method $name", EXPORT_AGAIN)

/** A dimension of the first tensor of this role, the last one if none is named: 1 or more. */
internal fun Manifest.Method.size(role: String, dimension: Int? = null): Int {
    val shape = (inputs + outputs).find { it.role == role }?.shape.orEmpty()
    val size = shape.getOrNull(dimension ?: shape.lastIndex)
    if (size == null || size !in 1..MAX_SIZE) {
        throw HarnessError("manifest.json: programs: role $role: has size $size", EXPORT_AGAIN)
    }
    return size.toInt()
}

private fun Manifest.TensorSpec.sizes(): LongArray = shape.toLongArray()

private fun Manifest.TensorSpec.numel(): Int = Math.toIntExact(Tensor.numel(sizes()))

private const val UPDATE = "use a harness of the sparserec version that exported the bundle"

private const val MAX_SIZE = 1L shl 24

/** Turns ExecuTorch's numbered errors into what they mean and what to do. */
internal fun <T> attempt(problem: String, action: () -> T): T = try {
    action()
} catch (error: ExecutorchRuntimeException) {
    throw explained(problem, error)
}

private fun explained(problem: String, error: ExecutorchRuntimeException): HarnessError {
    val code = error.errorCode
    val (name, fix) = ADVICE[code] ?: Pair("error", "see the error codes of ExecuTorch")
    return HarnessError("$problem: $name (0x${code.toString(16)}): ${reasons(error)}", fix)
}

/** The library's log goes with its error; of that, only its errors say anything about this one. */
private fun reasons(error: ExecutorchRuntimeException): String = error.detailedError.lines()
    .filterNot { it.startsWith("[") && "] I " in it }
    .joinToString(" ")

/** Names from ExecuTorch's `runtime/core/error.h`. */
private val ADVICE = mapOf(
    0x10 to Pair("NotSupported", "check the shapes: they are fixed at export"),
    0x12 to Pair("InvalidArgument", "export again: the program is no program, or of other inputs"),
    0x14 to Pair("OperatorMissing", "export without this operator, or use a library that has it"),
    0x20 to Pair("NotFound", "export the bundle again: a method or a backend is not there"),
    0x21 to Pair("MemoryAllocationFailed", "use a smaller batch, or free memory on the device"),
    0x22 to Pair("AccessFailed", "copy the bundle again, readable for this app"),
    0x23 to Pair("InvalidProgram", "copy the bundle again; this is no program for this library"),
    0x24 to Pair("InvalidExternalData", "export again with the weights inside the .pte"),
)
