import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.FloatBuffer;
import java.util.List;
import org.sparserec.harness.SlotLists;
import org.sparserec.harness.StepProgram;

/**
 * A program that counts the processor time spent in it, while it is told to. Reading that clock is a
 * call of the system's, which takes most of a microsecond, so what it takes is counted as well.
 */
final class Watched implements StepProgram {
    private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
    private static final int READINGS = 1000;

    private final StepProgram program;
    private boolean watching;
    private long taken;
    private long calls;

    Watched(StepProgram program) {
        this.program = program;
    }

    /** Nanoseconds of the current thread. What other processes take does not count. */
    static long now() {
        return THREADS.getCurrentThreadCpuTime();
    }

    /** Nanoseconds that {@link #now} takes. */
    static long clock() {
        long start = now();
        for (int k = 0; k < READINGS; k++) now();
        return (now() - start) / (READINGS + 1);
    }

    /** Counts from 0 on. */
    void watch() {
        watching = true;
        taken = 0;
        calls = 0;
    }

    /** Ends the count; returns it, with one reading of the clock in each of {@link #calls}. */
    long taken() {
        watching = false;
        return taken;
    }

    /** Calls that were counted: around each the clock was read twice. */
    long calls() {
        return calls;
    }

    private void count(long start) {
        if (!watching) return;
        taken += now() - start;
        calls++;
    }

    @Override
    public float gradients(FloatBuffer gradients) {
        long start = watching ? now() : 0;
        float loss = program.gradients(gradients);
        count(start);
        return loss;
    }

    @Override
    public void keepDense() {
        long start = watching ? now() : 0;
        program.keepDense();
        count(start);
    }

    @Override
    public void update(FloatBuffer updated, FloatBuffer[] states) {
        long start = watching ? now() : 0;
        program.update(updated, states);
        count(start);
    }

    @Override
    public int getBatchSize() {
        return program.getBatchSize();
    }

    @Override
    public int getSlots() {
        return program.getSlots();
    }

    @Override
    public FloatBuffer getRows() {
        return program.getRows();
    }

    @Override
    public FloatBuffer getMask() {
        return program.getMask();
    }

    @Override
    public FloatBuffer getSampled() {
        return program.getSampled();
    }

    @Override
    public FloatBuffer getWeight() {
        return program.getWeight();
    }

    @Override
    public int getWidth() {
        return program.getWidth();
    }

    @Override
    public SlotLists getNeighbours() {
        return program.getNeighbours();
    }

    @Override
    public SlotLists getReaders() {
        return program.getReaders();
    }

    @Override
    public FloatBuffer getValues() {
        return program.getValues();
    }

    @Override
    public FloatBuffer getGradient() {
        return program.getGradient();
    }

    @Override
    public List<FloatBuffer> getStates() {
        return program.getStates();
    }

    @Override
    public void setRate(float rate, float correction) {
        program.setRate(rate, correction);
    }
}
