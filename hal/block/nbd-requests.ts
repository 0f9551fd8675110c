/** One NBD request against an export: what is asked of the device, and how its answer is told to the client. */
import type { Fault, Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { ClientRequest } from "../../firmware-ts/wire/nbd/parser.ts";
import {
  command,
  commandFlag,
  maxPayloadBytes,
  type NbdError,
  nbdError,
  simpleReplyBytes,
} from "../../firmware-ts/wire/nbd/protocol.ts";
import {
  structuredErrorBytes,
  structuredReadBytes,
  writeSimpleReply,
  writeStructuredError,
  writeStructuredRead,
} from "../../firmware-ts/wire/nbd/replies.ts";
import { inRange } from "./device.ts";
import type { NbdExport } from "./nbd-export.ts";
import type { NbdOutput } from "./nbd-output.ts";

export interface NbdWork {
  /** Memory that the request occupies until it is answered. */
  readonly bytes: number;
  readonly outcome: Promise<{ readonly error: NbdError; readonly data: Buffer | undefined }>;
}

/** Starts the request. A number is the error of a request that never reached the device. */
export function execute(
  target: NbdExport,
  request: ClientRequest,
): NbdWork | NbdError | "disconnect" {
  if (request.command === command.disconnect) return "disconnect";
  const refused = check(target, request);
  if (refused !== nbdError.none) return refused;
  if (!target.on) {
    target.counters.refused += 1;
    return nbdError.io;
  }
  target.begin();
  const outcome = start(target, request).then((result) => {
    target.end();
    if (!result.ok) target.counters.failed += 1;
    return {
      error: result.ok ? nbdError.none : errorOf(result.fault),
      data: result.ok ? result.value : undefined,
    };
  });
  const bytes = request.command === command.read ? request.length : request.data.length;
  return { bytes, outcome };
}

/** Proto.md, "Error values": what is malformed or out of range is refused before it reaches the device. */
function check(target: NbdExport, request: ClientRequest): NbdError {
  const { facts } = target;
  const { fua, noHole, dontFragment } = commandFlag;
  switch (request.command) {
    case command.flush:
      return request.flags & ~fua ? nbdError.invalid : nbdError.none;
    case command.read:
      if (request.flags & ~(fua | dontFragment)) return nbdError.invalid;
      if (request.length === 0) return nbdError.invalid;
      if (request.length > maxPayloadBytes) return nbdError.overflow;
      break;
    case command.cache:
      if (request.flags & ~fua) return nbdError.invalid;
      break;
    case command.write:
    case command.trim:
    case command.writeZeroes: {
      const allowed = request.command === command.writeZeroes ? fua | noHole : fua;
      if (request.flags & ~allowed) return nbdError.invalid;
      if (facts.readOnly) return nbdError.notPermitted;
      break;
    }
    default:
      return nbdError.invalid;
  }
  if (inRange(facts, request.offset, request.length)) return nbdError.none;
  const beyond = request.offset + request.length > facts.sizeBytes;
  return beyond && request.command === command.write ? nbdError.noSpace : nbdError.invalid;
}

async function start(
  target: NbdExport,
  request: ClientRequest,
): Promise<Outcome<Buffer | undefined>> {
  const { device, counters } = target;
  const { offset, length } = request;
  const fua = (request.flags & commandFlag.fua) !== 0;
  switch (request.command) {
    case command.read:
      counters.reads += 1;
      counters.readBytes += length;
      return device.read(offset, length);
    case command.write:
      counters.writes += 1;
      counters.writtenBytes += length;
      return device.write(offset, request.data, { fua });
    case command.flush:
      return device.flush();
    case command.trim: {
      const trimmed = await device.trim(offset, length);
      return trimmed.ok && fua ? device.flush() : trimmed;
    }
    case command.writeZeroes:
      return device.writeZeroes(offset, length, {
        fua,
        mayTrim: (request.flags & commandFlag.noHole) === 0,
      });
    default:
      // CACHE is advice (proto.md, NBD_CMD_CACHE): the range is valid and there is nothing to prepare.
      return { ok: true, value: undefined };
  }
}

/** `fenced` is told apart from a broken disk: "operation not permitted" is what the reservation says. */
function errorOf(fault: Fault): NbdError {
  if (fault.code === "fenced") return nbdError.notPermitted;
  return fault.code === "badInput" ? nbdError.invalid : nbdError.io;
}

/** Queues the reply. Only reads need a structured one (proto.md, "Structured reply chunk message"). */
export function answer(
  output: NbdOutput,
  structured: boolean,
  request: ClientRequest,
  error: NbdError,
  data: Buffer | undefined,
): void {
  if (!structured || request.command !== command.read) {
    output.reply(
      simpleReplyBytes,
      (out, at) => writeSimpleReply(out, at, request, error),
      error === nbdError.none ? data : undefined,
    );
  } else if (error !== nbdError.none) {
    output.reply(
      structuredErrorBytes,
      (out, at) => writeStructuredError(out, at, request, error),
      undefined,
    );
  } else {
    output.reply(
      structuredReadBytes,
      (out, at) => writeStructuredRead(out, at, request, request.offset, request.length),
      data,
    );
  }
}
