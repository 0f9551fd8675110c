/** Looking at processes, and ending them. */

/**
 * The fields of a line of /proc/PID/stat from the third on (proc_pid_stat(5)): field n is at n - 3. Field 2 is the command in parentheses and may
 * contain anything, so they are counted from behind it.
 */
export function statFields(line: string): readonly string[] {
  return line.slice(line.lastIndexOf(")") + 2).split(" ");
}

export function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended meanwhile, which is what was wanted.
  }
}
