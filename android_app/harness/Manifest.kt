package org.sparserec.harness

/** `manifest.json` of a bundle (docs/formats.md section 1.5): the parts that the harness needs. */
class Manifest(
    val bundleId: String,
    val numUsers: Int,
    val numItems: Int,
    val knownUsers: Int,
    val knownItems: Int,
    val dim: Int,
    val nnz: Int,
    val floor: Int,
    val model: Model,
    val precision: Precision,
    /** P, numbers in the flat tensor of dense parameters; 0 where there are none. */
    val denseSize: Int,
    val training: Training,
    val programs: Map<String, Program>,
    val files: Map<String, FileEntry>,
) {
    val numRows: Int get() = numUsers + numItems

    /**
     * The base recommender.
     *
     * @param hasGraph where a row's vector depends on its neighbours
     * @param scoresAreProducts of a user's and an item's row of the table
     */
    enum class Model(val hasGraph: Boolean, val scoresAreProducts: Boolean = false) {
        MF(false, true),
        NEUMF(false),
        NGCF(true),
        LIGHTGCN(true),
    }

    /** How the device trains: `manifest.training`. */
    class Training(
        val optimizer: Optimizer,
        val learningRate: Double,
        val batchSize: Int,
        val steps: Int,
        val seed: Long,
        val window: Int,
        val sampledFraction: Double,
        val exchangeFraction: Double,
        val exchangeStop: Double,
        val negativeTries: Int,
        /** K, negatives that a batch shares; 0 where each example has its own. */
        val sharedNegatives: Int = 0,
    )

    /** One input or output of a method. [role] is what the harness binds it by. */
    class TensorSpec(val name: String, val dtype: String, val shape: List<Long>, val role: String)

    class Method(
        val inputs: List<TensorSpec>,
        val outputs: List<TensorSpec>,
        val operators: List<String>,
        val backends: List<String>,
        val plannedArenaBytes: Long,
    )

    class Program(val file: String, val methods: Map<String, Method>)

    class FileEntry(val sha256: String, val bytes: Long)

    companion object {
        const val SCHEMA_VERSION = 1
        private const val MAX_DIM = 256
        private const val MAX_DENSE = 1L shl 24
        private const val MAX_FLOAT = Float.MAX_VALUE.toDouble()
        private val COUNT = 1..Int.MAX_VALUE
        private val PLAIN_NAME = Regex("[A-Za-z0-9_][A-Za-z0-9_.-]*")

        fun parse(file: String, bytes: ByteArray): Manifest {
            val json = Fields.parse(file, bytes)
            json.int("schema_version", SCHEMA_VERSION..SCHEMA_VERSION)
            val numUsers = json.int("num_users", COUNT)
            val numItems = json.int("num_items", 1..Int.MAX_VALUE - numUsers)
            val dim = json.int("dim", 1..MAX_DIM)
            return Manifest(
                bundleId = json.text("bundle_id").also {
                    if (!isPlain(it)) json.fail("bundle_id", "a plain name")
                },
                numUsers = numUsers,
                numItems = numItems,
                knownUsers = json.int("known_users", 1..numUsers),
                knownItems = json.int("known_items", 1..numItems),
                dim = dim,
                nnz = json.int("nnz", COUNT),
                floor = json.int("floor", 0..dim),
                model = json.choice("model", Model.values()),
                precision = json.choice("precision", Precision.values(), Precision.FLOAT32),
                denseSize = denseSize(json),
                training = training(json.child("training")),
                programs = json.child("programs").children().mapValues { program(it.value) },
                files = files(json),
            )
        }

        /** Whether [name] may be a file's or a directory's: another could lead out of ours. */
        fun isPlain(name: String): Boolean = PLAIN_NAME.matches(name)

        /** The field `files` of [json]: what each file must be. */
        fun files(json: Fields): Map<String, FileEntry> =
            json.child("files").children().mapValues { (name, entry) ->
                if (!isPlain(name)) json.fail("files", "plain file names")
                FileEntry(entry.text("sha256"), entry.long("bytes", 0..Long.MAX_VALUE))
            }

        private fun training(json: Fields): Training {
            val loss = json.choice("loss", Loss.values(), Loss.BPR)
            return Training(
                optimizer = json.choice("optimizer", Optimizer.values()),
                learningRate = json.double("learning_rate", 0.0, MAX_FLOAT),
                batchSize = json.int("batch_size", COUNT),
                steps = json.int("steps", COUNT),
                seed = json.long("seed", 0..Long.MAX_VALUE),
                window = json.int("window", COUNT),
                sampledFraction = json.double("sampled_fraction", 0.0, 1.0),
                exchangeFraction = json.double("exchange_fraction", 0.0, 1.0),
                exchangeStop = json.double("exchange_stop", 0.0, 1.0),
                negativeTries = json.int("negative_tries", COUNT),
                sharedNegatives = if (loss.shared) json.int("negatives", COUNT) else 0,
            )
        }

        /** Only whether a batch shares its negatives matters here: the rest is in the program. */
        private enum class Loss(val shared: Boolean) {
            BPR(false),
            BCE(false),
            BPR_SHARED(true),
            SOFTMAX(true),
        }

        private fun denseSize(json: Fields): Int {
            if ("dense" !in json.names) return 0
            val sizes = json.children("dense").map { parameter ->
                parameter.longs("shape").fold(1L) { size, side ->
                    if (side !in 1..MAX_DENSE) parameter.fail("shape", "sides in [1, $MAX_DENSE]")
                    minOf(size * side, MAX_DENSE + 1)
                }
            }
            val size = sizes.sum()
            if (size > MAX_DENSE) json.fail("dense", "at most $MAX_DENSE numbers in all")
            return size.toInt()
        }

        private fun program(json: Fields) = Program(
            file = json.text("file"),
            methods = json.child("methods").children().mapValues { (_, method) ->
                Method(
                    inputs = method.children("inputs").map { tensor(it) },
                    outputs = method.children("outputs").map { tensor(it) },
                    operators = method.texts("operators"),
                    backends = method.texts("backends"),
                    plannedArenaBytes = method.long("planned_arena_bytes", 0..Long.MAX_VALUE),
                )
            },
        )

        private fun tensor(json: Fields) = TensorSpec(
            json.text("name"),
            json.text("dtype"),
            json.longs("shape"),
            json.text("role"),
        )
    }
}
