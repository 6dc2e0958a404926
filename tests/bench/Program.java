import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.util.Arrays;
import java.util.Random;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.Module;
import org.pytorch.executorch.Tensor;

/** Methods of a program, one after the other, on random inputs; their outputs are read. */
final class Program implements Driver.Work {
    private final Module module;
    private final String[] methods;
    private final EValue[][] inputs;
    private final FloatBuffer output = FloatBuffer.allocate(1 << 22);

    /** Calls are by turns a method's name and the shapes of its inputs, as 768x64,i768x4,256. */
    Program(String file, String[] calls) {
        module = Module.load(file, Module.LOAD_MODE_MMAP, 1);
        methods = new String[calls.length / 2];
        inputs = new EValue[methods.length][];
        Random random = new Random(1);
        for (int k = 0; k < methods.length; k++) {
            methods[k] = calls[2 * k];
            inputs[k] = Arrays.stream(calls[2 * k + 1].split(","))
                .map(shape -> EValue.from(tensor(shape, random)))
                .toArray(EValue[]::new);
        }
    }

    /**
     * A tenth of the values are not zero, and those are positive. Integers, of a shape that begins
     * with i, are lines of the first dimension.
     */
    private static Tensor tensor(String text, Random random) {
        if (text.startsWith("i")) return indices(shape(text.substring(1)), random);
        long[] shape = shape(text);
        FloatBuffer data = Tensor.allocateFloatBuffer((int) Tensor.numel(shape));
        for (int k = 0; k < data.capacity(); k++) {
            data.put(k, random.nextInt(10) == 0 ? 0.1f + 0.1f * random.nextFloat() : 0f);
        }
        data.put(0, 1f); // a sum of weights is not zero
        return Tensor.fromBlob(data, shape);
    }

    private static Tensor indices(long[] shape, Random random) {
        IntBuffer data = Tensor.allocateIntBuffer((int) Tensor.numel(shape));
        for (int k = 0; k < data.capacity(); k++) data.put(k, random.nextInt((int) shape[0]));
        return Tensor.fromBlob(data, shape);
    }

    private static long[] shape(String text) {
        return Arrays.stream(text.split("x")).mapToLong(Long::parseLong).toArray();
    }

    @Override
    public void once() {
        for (int k = 0; k < methods.length; k++) {
            for (EValue value : module.execute(methods[k], inputs[k])) {
                output.rewind();
                value.toTensor().copyDataInto(output);
            }
        }
    }
}
