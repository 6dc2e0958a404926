import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.ExecuTorchRuntime;
import org.pytorch.executorch.Module;
import org.pytorch.executorch.Tensor;
import org.pytorch.executorch.training.SGD;
import org.pytorch.executorch.training.TrainingModule;

/** Uses the Android API as an app does and prints what it sees; test_desktop.py reads that. */
public final class Probe {
    public static void main(String[] args) throws IOException {
        switch (args[0]) {
            case "registered" -> registered();
            case "train" -> train(args[1], args[2], Integer.parseInt(args[3]));
            case "forward" -> forward(args[1], args[2]);
            case "fail" -> fail(args[1], Integer.parseInt(args[2]));
            case "xor" -> xor(args[1], Integer.parseInt(args[2]));
            default -> throw new IllegalArgumentException(args[0]);
        }
        System.exit(0); // fbjni keeps a thread that is no daemon
    }

    private static void registered() {
        System.out.println(String.join(" ", ExecuTorchRuntime.getRegisteredBackends()));
        for (String op : ExecuTorchRuntime.getRegisteredOps()) System.out.println(op);
    }

    /** step(w (4,), x (16,4), y (16,)) gives loss and the new w; the state is kept here. */
    private static void train(String program, String data, int steps) throws IOException {
        float[] values = floats(data);
        EValue x = EValue.from(Tensor.fromBlob(Arrays.copyOfRange(values, 0, 64), new long[] {16, 4}));
        EValue y = EValue.from(Tensor.fromBlob(Arrays.copyOfRange(values, 64, 80), new long[] {16}));
        Module module = Module.load(program, Module.LOAD_MODE_MMAP, 1);
        float[] w = new float[4];
        for (int step = 0; step < steps; step++) {
            EValue[] out = module.execute(
                    "step", EValue.from(Tensor.fromBlob(w, new long[] {4})), x, y);
            System.out.println(out[0].toTensor().getDataAsFloatArray()[0]);
            w = out[1].toTensor().getDataAsFloatArray();
        }
        module.destroy();
    }

    private static void forward(String program, String data) throws IOException {
        float[] values = floats(data);
        Module module = Module.load(program, Module.LOAD_MODE_MMAP, 2);
        EValue input = EValue.from(Tensor.fromBlob(values, new long[] {values.length / 8, 8}));
        System.out.println(Arrays.toString(module.getMethodMetadata("forward").getBackends()));
        for (float value : module.forward(input)[0].toTensor().getDataAsFloatArray()) {
            System.out.println(value);
        }
    }

    /** One argument of the given length; prints the exception that comes. */
    private static void fail(String program, int length) {
        try {
            Tensor argument = Tensor.fromBlob(new float[length], new long[] {length});
            Module.load(program).execute("step", EValue.from(argument));
            System.out.println("no exception");
        } catch (RuntimeException e) {
            System.out.println(e);
        }
    }

    private static void xor(String program, int steps) {
        TrainingModule module = TrainingModule.load(program);
        EValue x = EValue.from(
                Tensor.fromBlob(new float[] {0, 0, 0, 1, 1, 0, 1, 1}, new long[] {4, 2}));
        EValue y = EValue.from(Tensor.fromBlob(new long[] {0, 1, 1, 0}, new long[] {4}));
        SGD sgd = null;
        for (int step = 0; step < steps; step++) {
            System.out.println(module.executeForwardBackward("forward", x, y)[0]
                    .toTensor().getDataAsFloatArray()[0]);
            if (sgd == null) sgd = SGD.create(module.namedParameters("forward"), 0.5);
            sgd.step(module.namedGradients("forward"));
        }
    }

    private static float[] floats(String path) throws IOException {
        byte[] bytes = Files.readAllBytes(Path.of(path));
        float[] values = new float[bytes.length / 4];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        return values;
    }
}
