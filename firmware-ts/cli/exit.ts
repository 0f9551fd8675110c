/** How `dyad` ends. The numbers are a promise to scripts; docs/cli.md lists them. */
export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 2,
  /** The pair serves, but not as it should: `status` only. */
  degraded: 3,
  /** Vetoes stand against the command. */
  notPossible: 4,
  daemonUnreachable: 5,
  partnerUnreachable: 6,
  /** As EX_TEMPFAIL of sysexits.h. */
  tryAgain: 75,
  /** As EX_NOPERM of sysexits.h. */
  permission: 77,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** An end with a message for the operator. `code` is the word that `-o json` prints. */
export class CliError extends Error {
  readonly exitCode: ExitCode;
  readonly code: string;

  constructor(exitCode: ExitCode, code: string, message: string) {
    super(message);
    this.exitCode = exitCode;
    this.code = code;
  }
}
