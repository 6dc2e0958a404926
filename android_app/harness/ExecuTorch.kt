package org.sparserec.harness

import org.pytorch.executorch.EValue
import org.pytorch.executorch.ExecuTorchRuntime
import org.pytorch.executorch.Module
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.LongBuffer

/**
 * The bundle's programs in ExecuTorch. This, [ProgramMethod] and `WorkloadPrograms.kt` alone know its
 * API.
 */
class ExecuTorch private constructor(
    private val modules: List<Module>,
    val stepProgram: StepProgram,
    val scoreProgram: ScoreProgram,
) : AutoCloseable {
    override fun close() = modules.forEach { it.close() }

    /** @param dense the state's dense parameters and their numbers, which are inputs in place */
    private class Step(
        module: Module,
        spec: Manifest.Program,
        manifest: Manifest,
        private val dense: List<ByteBuffer>,
    ) : StepProgram {
        private val gradientsMethod = ProgramMethod(module, spec, "gradients")
        private val updateMethod = ProgramMethod(module, spec, "update")
        private val chunk = spec.method("update").size("values")
        private val numbers = manifest.training.optimizer.states.size
        override val batchSize = spec.method("gradients").size("weight")
        override val slots = spec.method("gradients").size("tile", 0)
        override val rows = gradientsMethod.input("tile", slots, manifest.dim)
        override val mask = gradientsMethod.input("mask", slots, manifest.dim)
        override val sampled = gradientsMethod.input("sampled", slots, 1)
        override val weight = gradientsMethod.input("weight", batchSize)
        override val width =
            if (manifest.model.hasGraph) spec.method("gradients").size("neighbours") else 0
        override val neighbours = lists("neighbours", "neighbour_weights")
        override val readers = lists("readers", "reader_weights")
        override val values = updateMethod.input("values", chunk)
        override val gradient = updateMethod.input("gradient", chunk)
        override val states = updateMethod.inputs("state", chunk)
        private val rates =
            gradientsMethod.inputs("learning_rate", 1) + updateMethod.input("learning_rate", 1)
        private val corrections = listOf(gradientsMethod, updateMethod).flatMap {
            it.inputs("correction", 1)
        }
        private val loss = gradientsMethod.output("loss", "float32")
        private val grads = gradientsMethod.output("gradient", "float32", slots, manifest.dim)
        private val updatedValues = updateMethod.output("values", "float32", chunk)
        private val updatedStates = updateMethod.outputs("state", numbers, chunk)
        private val lossOut = FloatBuffer.allocate(1)
        private val denseBuffers = Array(dense.size) { dense[it].asFloatBuffer() }
        private val denseOutputs: IntArray
        private lateinit var outputs: Array<EValue>

        init {
            gradientsMethod.bind("dense", dense.take(1))
            gradientsMethod.bind("dense_state", dense.drop(1))
            denseOutputs =
                gradientsMethod.outputs("dense", dense.take(1).size, manifest.denseSize) +
                gradientsMethod.outputs("dense_state", dense.drop(1).size, manifest.denseSize)
            if (states.size != numbers) {
                throw HarnessError(
                    "manifest.json: training.optimizer: has $numbers numbers a value, " +
                        "method update takes ${states.size}",
                    EXPORT_AGAIN,
                )
            }
        }

        private fun lists(slotsRole: String, weightsRole: String): SlotLists? = if (width == 0) {
            null
        } else {
            SlotLists(
                gradientsMethod.ints(slotsRole, slots, width),
                gradientsMethod.input(weightsRole, slots, width),
            )
        }

        override fun setRate(rate: Float, correction: Float) {
            for (k in rates.indices) rates[k].put(0, rate)
            for (k in corrections.indices) corrections[k].put(0, correction)
        }

        override fun gradients(gradients: FloatBuffer): Float {
            outputs = gradientsMethod.run()
            gradients.rewind()
            outputs[grads].toTensor().copyDataInto(gradients)
            lossOut.rewind()
            outputs[loss].toTensor().copyDataInto(lossOut)
            return lossOut.get(0)
        }

        override fun keepDense() {
            for (k in denseOutputs.indices) {
                denseBuffers[k].rewind()
                outputs[denseOutputs[k]].toTensor().copyDataInto(denseBuffers[k])
            }
        }

        override fun update(updated: FloatBuffer, states: Array<FloatBuffer>) {
            val outputs = updateMethod.run()
            updated.rewind()
            outputs[updatedValues].toTensor().copyDataInto(updated)
            for (k in updatedStates.indices) {
                states[k].rewind()
                outputs[updatedStates[k]].toTensor().copyDataInto(states[k])
            }
        }
    }

    private class Score(module: Module, spec: Manifest.Program, manifest: Manifest) : ScoreProgram {
        private val method = ProgramMethod(module, spec, "score")
        override val vectors =
            if (manifest.model.hasGraph) Vectors(module, spec, manifest) else null
        private val width = spec.method("score").size("user")
        override val chunk = spec.method("score").size("penalty")
        override val top = spec.method("score").size("values")
        override val user = method.input("user", 1, 1, width)
        override val items = method.rareInput("items", 1, chunk, width)
        override val penalty = method.input("penalty", 1, chunk)
        private val dense = method.inputs("dense", manifest.denseSize)
        private val values = method.output("values", "float32", 1, top)
        private val indices = method.output("indices", "int64", 1, top)

        override fun setDense(dense: FloatBuffer) {
            for (input in this.dense + vectors?.dense.orEmpty()) {
                input.rewind()
                input.put(dense.duplicate().apply { rewind() })
            }
        }

        override fun score(values: FloatArray, indices: LongArray) {
            val outputs = method.run()
            outputs[this.values].toTensor().copyDataInto(FloatBuffer.wrap(values))
            outputs[this.indices].toTensor().copyDataInto(LongBuffer.wrap(indices))
        }
    }

    private class Vectors(module: Module, spec: Manifest.Program, manifest: Manifest) :
        VectorsProgram {
        private val method = ProgramMethod(module, spec, "vectors")
        override val slots = spec.method("vectors").size("tile", 0)
        override val width = spec.method("vectors").size("neighbours")
        override val rows = method.rareInput("tile", slots, manifest.dim)
        override val neighbours = SlotLists(
            method.ints("neighbours", slots, width),
            method.input("neighbour_weights", slots, width),
        )
        val dense = method.inputs("dense", manifest.denseSize)
        private val vectors = method.output(
            "vectors",
            "float32",
            spec.method("score").size("penalty"),
            spec.method("score").size("user"),
        )

        override fun vectors(vectors: FloatBuffer) {
            vectors.rewind()
            method.run()[this.vectors].toTensor().copyDataInto(vectors)
        }
    }

    companion object {
        /**
         * Loads both programs, mapped, with [threads] threads each; steps train [dense], as
         * `TrainState` has it.
         */
        fun load(bundle: Bundle, threads: Int, dense: List<ByteBuffer>): ExecuTorch {
            checkSupported(bundle)
            val manifest = bundle.manifest
            val programs = manifest.programs
            val step = module(bundle, "step", threads)
            val score = module(bundle, "score", threads)
            return ExecuTorch(
                listOf(step, score),
                Step(step, programs.getValue("step"), manifest, dense),
                Score(score, programs.getValue("score"), manifest),
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

        /** Refuses a bundle with a program that needs what this library lacks. */
        internal fun checkSupported(bundle: Bundle) {
            val operators = loadLibrary()
            val backends = ExecuTorchRuntime.getRegisteredBackends().toSet()
            bundle.manifest.programs.values.forEach { checkSupported(it, operators, backends) }
        }

        internal fun module(bundle: Bundle, name: String, threads: Int): Module =
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
