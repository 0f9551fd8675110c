/** Limits of a virtual server by words of the command line, whatever keys the schema has. */
import { expect, test } from "vitest";
import { edits, setLimits } from "../../firmware-ts/cli/edit.ts";
import type { VirtualServerInput } from "../../firmware-ts/schema/config.ts";

const known = {
  memory_mb: { type: "integer" },
  is_strict: { type: "boolean" },
  class: { type: "string" },
};
const server = {
  name: "alpha",
  limits: { memoryMb: 64, class: "gold" },
} as unknown as VirtualServerInput;
const set = (...words: string[]) =>
  setLimits(server, words, known) as unknown as { limits: object };

test("limits are set, kept and taken away", () => {
  expect(set("memory_mb=512", "is_strict=true").limits).toEqual({
    memoryMb: 512,
    isStrict: true,
    class: "gold",
  });
  expect(set("memory_mb=none").limits).toEqual({ class: "gold" });
  expect(set("class=a=b").limits).toEqual({ memoryMb: 64, class: "a=b" });
  // What is no number is for the daemon to refuse, which knows what it expected.
  expect(set("memory_mb=much").limits).toMatchObject({ memoryMb: "much" });
});

test.each(["memory=5", "memoryMb=5", "toString=1", "=5", ""])("%s is no limit", (word) => {
  expect(() => set(word)).toThrow(
    `expected one of memory_mb=VALUE, is_strict=VALUE, class=VALUE; found ${word}`,
  );
});

test("settings of SMB are changed by the keys of the file, and the users stay", () => {
  const users = [{ name: "anna", uid: 1001 }];
  const smb = { workgroup: "LAB", guest: true, users, writeThrough: true };
  const shared = { ...server, smb } as VirtualServerInput;
  expect(edits.setSmb(shared, ["write_through=false", "workgroup=none"]).smb).toEqual({
    workgroup: "WORKGROUP",
    guest: true,
    users,
    writeThrough: false,
  });
});
