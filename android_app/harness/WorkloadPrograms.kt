package org.sparserec.harness

import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import org.pytorch.executorch.training.SGD
import org.pytorch.executorch.training.TrainingModule
import java.nio.FloatBuffer
import java.nio.LongBuffer

private const val TRAINING = "training"

/** The tile's loss alone, for the workload `sparse_forward`: there is nothing to update. */
internal class ForwardProgram private constructor(
    private val module: Module,
    spec: Manifest.Program,
    dim: Int,
) : StepProgram,
    AutoCloseable {
    private val method = ProgramMethod(module, spec, "forward")
    override val batchSize = spec.method("forward").size("weight")
    override val slots = spec.method("forward").size("tile", 0)
    override val rows = method.input("tile", slots, dim)
    override val mask = method.input("mask", slots, dim)
    override val weight = method.input("weight", batchSize)
    override val sampled: FloatBuffer = Tensor.allocateFloatBuffer(slots)
    override val width = 0
    override val neighbours: SlotLists? = null
    override val readers: SlotLists? = null
    override val values: FloatBuffer = Tensor.allocateFloatBuffer(1)
    override val gradient: FloatBuffer = Tensor.allocateFloatBuffer(1)
    override val states = emptyList<FloatBuffer>()
    private val loss = method.output("loss", "float32")

    override fun setRate(rate: Float, correction: Float) = Unit

    /** Only the loss; [gradients] stays as it is. */
    override fun gradients(gradients: FloatBuffer): Float = scalar(method.run()[loss])

    override fun keepDense() = Unit

    override fun update(updated: FloatBuffer, states: Array<FloatBuffer>) = Unit

    override fun close() = module.close()

    companion object {
        fun load(bundle: Bundle, threads: Int): ForwardProgram {
            ExecuTorch.checkSupported(bundle)
            val module = ExecuTorch.module(bundle, "forward", threads)
            val spec = bundle.manifest.programs.getValue("forward")
            return ForwardProgram(module, spec, bundle.manifest.dim)
        }
    }
}

/** Loads the program of this name that has the whole dense table in it. */
internal fun loadDense(bundle: Bundle, name: String, threads: Int): DenseProgram {
    ExecuTorch.checkSupported(bundle)
    val spec = bundle.manifest.programs.getValue(name)
    val slots = 3 * bundle.manifest.training.batchSize
    if (name != TRAINING) {
        return DenseModule(ExecuTorch.module(bundle, name, threads), spec, slots)
    }
    val module = attempt("${spec.file} cannot be loaded") {
        TrainingModule.load(bundle.program(name).toString())
    }
    return DenseTraining(module, spec, slots, bundle.manifest.training.learningRate.toDouble())
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

private fun scalar(value: EValue): Float = value.toTensor().dataAsFloatArray[0]
