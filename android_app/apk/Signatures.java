import java.io.FileInputStream;
import java.io.ObjectInputStream;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.TreeSet;
import java.util.zip.GZIPInputStream;
import org.codehaus.mojo.animal_sniffer.Clazz;

/**
 * Writes Animal Sniffer's signature lists as text: a line for each class with its parents, then one
 * for each member, behind a tab. Arguments: the folder to write to, then the lists.
 */
public class Signatures {
    public static void main(String[] arguments) throws Exception {
        for (int k = 1; k < arguments.length; k++) {
            Path list = Path.of(arguments[k]);
            Path text = Path.of(arguments[0], list.getFileName() + ".txt");
            try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(text, StandardCharsets.UTF_8))) {
                write(list, out);
            }
        }
    }

    private static void write(Path list, PrintWriter out) throws Exception {
        try (FileInputStream file = new FileInputStream(list.toFile());
                ObjectInputStream in = new ObjectInputStream(new GZIPInputStream(file))) {
            for (Clazz next = (Clazz) in.readObject(); next != null; next = (Clazz) in.readObject()) {
                String parent = next.getSuperClass() == null ? "" : " " + next.getSuperClass();
                String interfaces = String.join(" ", next.getSuperInterfaces());
                out.print(next.getName() + parent + " " + interfaces + "\n");
                for (String member : new TreeSet<>(next.getSignatures())) {
                    out.print("\t" + member + "\n");
                }
            }
        }
    }
}
