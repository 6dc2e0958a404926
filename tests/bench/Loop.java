import com.sun.management.ThreadMXBean;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import org.sparserec.harness.Bundle;
import org.sparserec.harness.Evaluator;
import org.sparserec.harness.ExecuTorch;
import org.sparserec.harness.Graph;
import org.sparserec.harness.Interactions;
import org.sparserec.harness.Metrics;
import org.sparserec.harness.PackedTable;
import org.sparserec.harness.Sampler;
import org.sparserec.harness.Samples;
import org.sparserec.harness.TrainState;
import org.sparserec.harness.Trainer;

/** The harness's training loop on a bundle, put together as the harness does it for a run. */
final class Loop {
    private static final int SLOTS_PER_EXAMPLE = 3; // of MF: user, positive, negative

    private final TrainState state;
    private final Sampler sampler;
    private final int[] batch;
    private final int[] starts;
    private final int[] ends;
    private final Watched program;
    private final Trainer trainer;
    private final Evaluator evaluator;
    private final Metrics metrics;
    private long touched; // keeps the accesses from being left out

    Loop(Path path, int steps) {
        Bundle bundle = Bundle.Companion.open(path);
        Interactions interactions = bundle.interactions();
        sampler = new Sampler(interactions, bundle.getManifest());
        state = TrainState.Companion.begin(bundle, steps, sampler.getSampledSize());
        ExecuTorch programs = ExecuTorch.Companion.load(bundle, 1, state.getDense());
        Graph graph = bundle.graph();
        program = new Watched(programs.getStepProgram());
        metrics = new Metrics(steps);
        trainer = new Trainer(bundle.getManifest(), program, sampler, state, metrics, graph);
        batch = new int[SLOTS_PER_EXAMPLE * bundle.getManifest().getTraining().getBatchSize()];
        starts = new int[batch.length];
        ends = new int[batch.length];
        evaluator = new Evaluator(
            bundle.getManifest(), programs.getScoreProgram(), interactions, new Samples(256), graph);
    }

    void step() {
        trainer.step();
    }

    /** Ranks all items for every user who has a later item. */
    void evaluate() {
        ByteBuffer dense = state.getDense().isEmpty() ? null : state.getDense().get(0);
        evaluator.evaluate(state.getTable(), dense);
    }

    /**
     * Nanoseconds, after each of so many steps, of reading once where the entries of the next
     * batch's rows are, and a number of the first and the last of them: what any step waits for.
     */
    long[] accesses(int steps) {
        long[] taken = new long[steps];
        for (int k = 0; k < steps; k++) {
            step();
            sampler.batch(state.getStep(), batch, batch.length / SLOTS_PER_EXAMPLE);
            long start = System.nanoTime();
            read(state.getTable());
            taken[k] = System.nanoTime() - start;
        }
        return taken;
    }

    private void read(PackedTable table) {
        for (int slot = 0; slot < batch.length; slot++) {
            starts[slot] = table.start(batch[slot]);
            ends[slot] = table.end(batch[slot]);
        }
        for (int slot = 0; slot < batch.length; slot++) {
            touched += table.touch(starts[slot], ends[slot]);
        }
    }

    String metrics() {
        return metrics.toJson().toString();
    }

    /**
     * Processor time of windows of so many steps, in nanoseconds, and of it that of the graph;
     * without what reading the clock takes.
     */
    String share(int windows, int window) {
        long[] loop = new long[windows];
        long[] graph = new long[windows];
        for (int k = 0; k < windows; k++) {
            long clock = Watched.clock();
            program.watch();
            long start = Watched.now();
            for (int s = 0; s < window; s++) step();
            loop[k] = Watched.now() - start - 2 * program.calls() * clock;
            graph[k] = program.taken() - program.calls() * clock;
        }
        return "{\"loop\": " + Arrays.toString(loop) + ", \"graph\": " + Arrays.toString(graph) + "}";
    }

    /** Bytes that steps take on the Java heap, and of them those of as many program calls. */
    String allocation(int steps) {
        FloatBuffer gradients = FloatBuffer.allocate(program.getRows().capacity());
        FloatBuffer updated = FloatBuffer.allocate(program.getValues().capacity());
        FloatBuffer[] updatedStates = program.getStates().stream()
            .map(numbers -> FloatBuffer.allocate(numbers.capacity()))
            .toArray(FloatBuffer[]::new);
        long start = allocated();
        for (int k = 0; k < steps; k++) step();
        long stepped = allocated();
        for (int k = 0; k < steps; k++) {
            program.gradients(gradients);
            program.update(updated, updatedStates);
        }
        long called = allocated();
        return "{\"steps\": " + (stepped - start) + ", \"calls\": " + (called - stepped) + "}";
    }

    private static long allocated() {
        ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
        return threads.getThreadAllocatedBytes(Thread.currentThread().getId());
    }
}
