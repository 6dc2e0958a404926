import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.stream.Collectors;
import org.pytorch.executorch.ExecuTorchRuntime;

/**
 * Times programs through Android's ExecuTorch library, and the harness's loop, as it is told.
 *
 * <p>A line in: a command and its arguments, separated by tabs. A line out: RESULT, a tab, and JSON.
 * Everything runs on the main thread, with one ExecuTorch thread.
 */
public final class Driver {
    /** Something that can be repeated and timed. */
    interface Work {
        void once();
    }

    private static final Map<String, Work> WORK = new HashMap<>();
    private static final Map<String, Loop> LOOPS = new HashMap<>();

    private Driver() {}

    public static void main(String[] args) throws IOException {
        ExecuTorchRuntime.getRegisteredOps(); // loads the library, so that no memory is for that
        BufferedReader commands =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try {
            for (String line = commands.readLine(); line != null; line = commands.readLine()) {
                System.out.println("RESULT\t" + answer(line.split("\t")));
            }
        } catch (Exception | Error failed) {
            failed.printStackTrace();
            System.exit(1);
        }
        System.exit(0); // fbjni leaves a thread that is no daemon
    }

    private static String answer(String[] said) throws IOException {
        String name = said.length > 1 ? said[1] : null;
        switch (said[0]) {
            case "program": // name, file, then by turns a method and its input shapes: 768x64,256
                WORK.put(name, new Program(said[2], Arrays.copyOfRange(said, 3, said.length)));
                return "null";
            case "training": // name, file, rows of the table, examples in a batch
                WORK.put(name, new Training(said[2], number(said[3]), number(said[4])));
                return "null";
            case "loop": // name, bundle, steps at most
                LOOPS.put(name, new Loop(Path.of(said[2]), number(said[3])));
                WORK.put(name + " step", LOOPS.get(name)::step);
                WORK.put(name + " evaluation", LOOPS.get(name)::evaluate);
                return "null";
            case "time": // name, repetitions: nanoseconds of each
                return Arrays.toString(time(WORK.get(name), number(said[2])));
            case "accesses": // name of a loop of MF, steps: nanoseconds of reading its batches' rows
                return Arrays.toString(LOOPS.get(name).accesses(number(said[2])));
            case "metrics": // name of a loop: the report's metrics of all its steps
                return LOOPS.get(name).metrics();
            case "share": // name of a loop, windows, steps of one: nanoseconds, also of the graph
                return LOOPS.get(name).share(number(said[2]), number(said[3]));
            case "allocation": // name of a loop, steps: bytes on the Java heap
                return LOOPS.get(name).allocation(number(said[2]));
            case "memory": // kB, now and at most
                return memory();
            default:
                throw new IllegalArgumentException(said[0]);
        }
    }

    private static int number(String text) {
        return Integer.parseInt(text);
    }

    private static long[] time(Work work, int repetitions) {
        long[] taken = new long[repetitions];
        for (int k = 0; k < repetitions; k++) {
            long start = System.nanoTime();
            work.once();
            taken[k] = System.nanoTime() - start;
        }
        return taken;
    }

    private static String memory() throws IOException {
        Map<String, String> status = Files.readAllLines(Path.of("/proc/self/status")).stream()
            .map(line -> line.split(":\\s*", 2))
            .collect(Collectors.toMap(pair -> pair[0], pair -> pair[1].replace(" kB", "")));
        return "{\"now\": " + status.get("VmRSS") + ", \"peak\": " + status.get("VmHWM") + "}";
    }
}
