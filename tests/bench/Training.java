import java.util.Random;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.Tensor;
import org.pytorch.executorch.training.SGD;
import org.pytorch.executorch.training.TrainingModule;

/** ExecuTorch's own way to train: gradients of all parameters, then its SGD over all of them. */
final class Training implements Driver.Work {
    private static final String METHOD = "training";

    private final TrainingModule module;
    private final EValue rows;
    private final SGD optimizer;

    /** Draws one batch of (3 examples,) rows of the table. */
    Training(String file, int tableRows, int examples) {
        module = TrainingModule.load(file);
        long[] drawn = new Random(1).longs(3L * examples, 0, tableRows).toArray();
        rows = EValue.from(Tensor.fromBlob(drawn, new long[] {drawn.length}));
        module.executeForwardBackward(METHOD, rows);
        optimizer = SGD.create(module.namedParameters(METHOD), 0.01);
    }

    @Override
    public void once() {
        module.executeForwardBackward(METHOD, rows);
        optimizer.step(module.namedGradients(METHOD));
    }
}
