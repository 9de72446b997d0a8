/** The console's entry: the shell with its first tab; the others are fetched when they are opened. */
import "./app";
