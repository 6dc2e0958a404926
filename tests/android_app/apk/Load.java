import java.nio.charset.StandardCharsets;

/**
 * Loads and links the classes whose names come on standard input, one a line, so that the JVM
 * verifies each; prints how many. What their initialisers then lack on a desktop is of no interest.
 */
public class Load {
    public static void main(String[] arguments) throws Exception {
        int linked = 0;
        String names = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        for (String name : names.split("\n")) {
            try {
                Class.forName(name, true, Load.class.getClassLoader());
            } catch (VerifyError | IncompatibleClassChangeError | ClassFormatError error) {
                System.out.println(name + ": " + error);
                System.exit(1);
            } catch (LinkageError | RuntimeException error) {
                Throwable cause = error.getCause();
                if (cause instanceof VerifyError || cause instanceof IncompatibleClassChangeError) {
                    System.out.println(name + ": " + cause);
                    System.exit(1);
                }
            }
            linked++;
        }
        System.out.println(linked);
        System.exit(0); // fbjni may have left a thread
    }
}
