package org.sparserec.harness

import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.ExecuTorchRuntime
import org.pytorch.executorch.ExecutorchRuntimeException
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import org.pytorch.executorch.training.SGD
import org.pytorch.executorch.training.TrainingModule
import java.nio.FloatBuffer
import java.nio.LongBuffer

/** The bundle's programs in ExecuTorch. This is the only file that knows its API. */
class ExecuTorch private constructor(
    private val modules: List<Module>,
    val stepProgram: StepProgram,
    val scoreProgram: ScoreProgram,
) : AutoCloseable {
    override fun close() = modules.forEach { it.close() }

    /** One method with its inputs bound once: tensors on direct buffers share memory with them. */
    private class Method(
        private val module: Module,
        program: Manifest.Program,
        private val name: String,
    ) {
        private val label = "${program.file}: method $name"
        private val spec = program.method(name)
        private val tensors = HashMap<String, EValue>()
        private val inputs by lazy {
            Array(spec.inputs.size) { tensors[spec.inputs[it].role] ?: unknown(spec.inputs[it]) }
        }

        private var checked = false

        init {
            attempt("$label cannot be loaded") { module.loadMethod(name) }
        }

        /** Makes the input of this role, which must have this shape, and returns its buffer. */
        fun input(role: String, vararg shape: Int): FloatBuffer {
            check("input", spec.inputs.find { it.role == role }, role, "float32", shape)
            val sizes = LongArray(shape.size) { shape[it].toLong() }
            val buffer = Tensor.allocateFloatBuffer(Math.toIntExact(Tensor.numel(sizes)))
            tensors[role] = EValue.from(Tensor.fromBlob(buffer, sizes))
            return buffer
        }

        /** The place among the outputs of the output of this role. */
        fun output(role: String, dtype: String, vararg shape: Int): Int {
            check("output", spec.outputs.find { it.role == role }, role, dtype, shape)
            return spec.outputs.indexOfFirst { it.role == role }
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

    private class Step(module: Module, spec: Manifest.Program, dim: Int) : StepProgram {
        private val gradientsMethod = Method(module, spec, "gradients")
        private val updateMethod = Method(module, spec, "update")
        private val chunk = spec.method("update").size("values")
        override val batchSize = spec.method("gradients").size("weight")
        override val rows = gradientsMethod.input("tile", 3 * batchSize, dim)
        override val mask = gradientsMethod.input("mask", 3 * batchSize, dim)
        override val sampled = gradientsMethod.input("sampled", 3 * batchSize, 1)
        override val weight = gradientsMethod.input("weight", batchSize)
        override val values = updateMethod.input("values", chunk)
        override val gradient = updateMethod.input("gradient", chunk)
        override val learningRate = updateMethod.input("learning_rate", 1)
        private val loss = gradientsMethod.output("loss", "float32")
        private val grads = gradientsMethod.output("gradient", "float32", 3 * batchSize, dim)
        private val updatedValues = updateMethod.output("values", "float32", chunk)

        private val lossOut = FloatBuffer.allocate(1)

        override fun gradients(gradients: FloatBuffer): Float {
            val outputs = gradientsMethod.run()
            gradients.rewind()
            outputs[grads].toTensor().copyDataInto(gradients)
            lossOut.rewind()
            outputs[loss].toTensor().copyDataInto(lossOut)
            return lossOut.get(0)
        }

        override fun update(updated: FloatBuffer) {
            updated.rewind()
            updateMethod.run()[updatedValues].toTensor().copyDataInto(updated)
        }
    }

    /** The tile's loss alone, for the workload `sparse_forward`: there is nothing to update. */
    private class Forward(module: Module, spec: Manifest.Program, dim: Int) : StepProgram {
        private val method = Method(module, spec, "forward")
        override val batchSize = spec.method("forward").size("weight")
        override val rows = method.input("tile", 3 * batchSize, dim)
        override val mask = method.input("mask", 3 * batchSize, dim)
        override val weight = method.input("weight", batchSize)
        override val sampled: FloatBuffer = Tensor.allocateFloatBuffer(3 * batchSize)
        override val values: FloatBuffer = Tensor.allocateFloatBuffer(1)
        override val gradient: FloatBuffer = Tensor.allocateFloatBuffer(1)
        override val learningRate: FloatBuffer = Tensor.allocateFloatBuffer(1)
        private val loss = method.output("loss", "float32")

        /** Only the loss; [gradients] stays as it is. */
        override fun gradients(gradients: FloatBuffer): Float = scalar(method.run()[loss])

        override fun update(updated: FloatBuffer) = Unit
    }

    /** A dense program's single input: the batch's rows (3B,). */
    private class Rows(slots: Int) {
        val buffer: LongBuffer = Tensor.allocateLongBuffer(slots)
        val value: EValue = EValue.from(Tensor.fromBlob(buffer, longArrayOf(slots.toLong())))
    }

    private class DenseModule(private val module: Module, spec: Manifest.Program, slots: Int) :
        DenseProgram {
        private val name = spec.methods.keys.single()
        private val label = "${spec.file}: method $name"
        private val input = Rows(slots)
        override val rows = input.buffer

        override fun step(): Float = attempt("$label failed") {
            scalar(module.execute(name, input.value)[0])
        }

        override fun close() = module.close()
    }

    /** ExecuTorch's own way to train: gradients of all parameters, then its SGD over all of them. */
    private class DenseTraining(
        private val module: TrainingModule,
        spec: Manifest.Program,
        slots: Int,
        private val learningRate: Double,
    ) : DenseProgram {
        private val name = spec.methods.keys.single()
        private val label = "${spec.file}: method $name"
        private val input = Rows(slots)
        override val rows = input.buffer
        private var optimizer: SGD? = null

        override fun step(): Float = attempt("$label failed") {
            val loss = scalar(module.executeForwardBackward(name, input.value)[0])
            // The parameters can be asked for only once the method has run.
            val sgd = optimizer
                ?: SGD.create(module.namedParameters(name), learningRate).also { optimizer = it }
            sgd.step(module.namedGradients(name))
            loss
        }

        override fun close() = module.close()
    }

    private class Score(module: Module, spec: Manifest.Program, dim: Int) : ScoreProgram {
        private val method = Method(module, spec, "score")
        override val chunk = spec.method("score").size("penalty")
        override val top = spec.method("score").size("values")
        override val user = method.input("user", 1, 1, dim)
        override val items = method.input("items", 1, chunk, dim)
        override val penalty = method.input("penalty", 1, chunk)
        private val values = method.output("values", "float32", 1, top)
        private val indices = method.output("indices", "int64", 1, top)

        override fun score(values: FloatArray, indices: LongArray) {
            val outputs = method.run()
            outputs[this.values].toTensor().copyDataInto(FloatBuffer.wrap(values))
            outputs[this.indices].toTensor().copyDataInto(LongBuffer.wrap(indices))
        }
    }

    companion object {
        private const val UPDATE = "use a harness of the sparserec version that exported the bundle"

        /** Loads both programs, mapped, with [threads] threads each. */
        fun load(bundle: Bundle, threads: Int): ExecuTorch {
            checkSupported(bundle)
            val programs = bundle.manifest.programs
            val dim = bundle.manifest.dim
            val step = module(bundle, "step", threads)
            val score = module(bundle, "score", threads)
            return ExecuTorch(
                listOf(step, score),
                Step(step, programs.getValue("step"), dim),
                Score(score, programs.getValue("score"), dim),
            )
        }

        /** Loads the library, which else happens with the first program. Returns its operators. */
        fun loadLibrary(): Set<String> = try {
            ExecuTorchRuntime.getRegisteredOps().toSet()
        } catch (error: LinkageError) {
            throw HarnessError(
                "the ExecuTorch library cannot be loaded ($error)",
                "on a phone, install the APK of its ABI, or the universal one; on a desktop, " +
                    "run android_app/runtime/build.py and start bin/harness",
            )
        }

        /** Loads `forward.pte`; the caller has to close the second of the two. */
        fun forward(bundle: Bundle, threads: Int): Pair<StepProgram, AutoCloseable> {
            checkSupported(bundle)
            val module = module(bundle, "forward", threads)
            val spec = bundle.manifest.programs.getValue("forward")
            return Pair(Forward(module, spec, bundle.manifest.dim), AutoCloseable(module::close))
        }

        /** Loads the program of this name that has the whole dense table in it. */
        fun dense(bundle: Bundle, name: String, threads: Int): DenseProgram {
            checkSupported(bundle)
            val spec = bundle.manifest.programs.getValue(name)
            val slots = 3 * bundle.manifest.training.batchSize
            if (name != TRAINING) return DenseModule(module(bundle, name, threads), spec, slots)
            val module = attempt("${spec.file} cannot be loaded") {
                TrainingModule.load(bundle.program(name).toString())
            }
            val learningRate = bundle.manifest.training.learningRate.toDouble()
            return DenseTraining(module, spec, slots, learningRate)
        }

        private fun checkSupported(bundle: Bundle) {
            val operators = loadLibrary()
            val backends = ExecuTorchRuntime.getRegisteredBackends().toSet()
            bundle.manifest.programs.values.forEach { checkSupported(it, operators, backends) }
        }

        private const val TRAINING = "training"

        private fun module(bundle: Bundle, name: String, threads: Int): Module =
            attempt("${bundle.program(name)} cannot be loaded") {
                Module.load(bundle.program(name).toString(), Module.LOAD_MODE_MMAP, threads)
            }

        private fun checkSupported(
            program: Manifest.Program,
            operators: Set<String>,
            backends: Set<String>,
        ) {
            for ((name, method) in program.methods) {
                val missing = (method.operators - operators) + (method.backends - backends)
                if (missing.isNotEmpty()) {
                    throw HarnessError(
                        "${program.file}: method $name needs ${missing.joinToString()}, " +
                            "which this ExecuTorch library does not have",
                        "export without them, or use a library that has them",
                    )
                }
            }
        }
    }
}

private fun scalar(value: EValue): Float = value.toTensor().dataAsFloatArray[0]

private fun Manifest.Program.method(name: String): Manifest.Method = methods[name]
    ?: throw HarnessError("manifest.json: programs: $file has no method $name", EXPORT_AGAIN)

/** The last dimension of the first tensor of this role, small enough to calculate with. */
private fun Manifest.Method.size(role: String): Int {
    val size = (inputs + outputs).find { it.role == role }?.shape?.lastOrNull()
    if (size == null || size !in 1..MAX_SIZE) {
        throw HarnessError("manifest.json: programs: role $role: has size $size", EXPORT_AGAIN)
    }
    return size.toInt()
}

private const val MAX_SIZE = 1L shl 24

/** Turns ExecuTorch's numbered errors into what they mean and what to do. */
private fun <T> attempt(problem: String, action: () -> T): T = try {
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
