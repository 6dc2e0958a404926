import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import kotlin.Unit;
import org.sparserec.harness.DesktopPlatform;
import org.sparserec.harness.HarnessError;
import org.sparserec.harness.Options;
import org.sparserec.harness.Run;

/**
 * Runs the harness for one bundle after the other in one JVM, as its main class runs it for one.
 *
 * <p>A line in: bundle, state and out, separated by tabs. A line out: RESULT, then `succeeded`,
 * `failed` or `thrown`, then the error. A JVM that dies says nothing, which is an answer too.
 */
public final class Driver {
    private Driver() {}

    public static void main(String[] args) throws Exception {
        BufferedReader cases =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = cases.readLine(); line != null; line = cases.readLine()) {
            String[] parts = line.split("\t");
            String answer = run(Map.of("bundle", parts[0], "state", parts[1], "out", parts[2]));
            byte[] bytes = ("\nRESULT\t" + answer + "\n").getBytes(StandardCharsets.UTF_8);
            System.out.write(bytes, 0, bytes.length);
            System.out.flush();
        }
        System.exit(0); // fbjni leaves a thread that is no daemon
    }

    private static String run(Map<String, String> keys) {
        try {
            Options options = Options.Companion.of(keys);
            String error =
                new Run(options, new DesktopPlatform(), (phase, step, steps, loss) -> Unit.INSTANCE)
                    .run();
            return error == null ? "succeeded\t" : "failed\t" + error;
        } catch (Throwable thrown) { // also what no program should catch: it is the finding
            String kind = thrown instanceof HarnessError ? "failed\t" : "thrown\t";
            return kind + String.valueOf(thrown).replaceAll("\\s+", " ");
        }
    }
}
