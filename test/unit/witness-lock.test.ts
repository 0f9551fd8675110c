/** The lock of a witness's state where the C library does not do its part: told as what it is, and no descriptor left open. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { lockFile } from "../../hal/witness/lock.ts";

const libc = vi.hoisted(() => ({ load: vi.fn(), errno: 0 }));
vi.mock("koffi", () => ({ default: { load: libc.load, errno: () => libc.errno } }));

const directory = mkdtempSync(join(tmpdir(), "dyad-lock-"));
afterAll(() => rmSync(directory, { recursive: true }));

const path = join(directory, "lock");
const openDescriptors = () => readdirSync("/proc/self/fd").length;
const answering = (result: number) => () => ({ func: () => () => result });

test.each([
  [constants.errno.EWOULDBLOCK, "refused", "another witness is running on this state"],
  [constants.errno.ENOLCK, "ioError", `flock fails with errno ${constants.errno.ENOLCK}`],
])("errno %i is %s", (errno, code, message) => {
  const before = openDescriptors();
  libc.load.mockImplementation(answering(-1));
  libc.errno = errno;
  expect(lockFile(path)).toMatchObject({ fault: { code, message } });
  expect(openDescriptors()).toBe(before);
});

test("a library that is not there is told", () => {
  const before = openDescriptors();
  libc.load.mockImplementation(() => {
    throw new Error("no libc.so.6");
  });
  expect(lockFile(path)).toMatchObject({
    fault: { code: "ioError", message: expect.stringContaining("flock cannot be called") },
  });
  expect(openDescriptors()).toBe(before);
});
