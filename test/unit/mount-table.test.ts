import { describe, expect, test } from "vitest";
import { mountAt, mountsAt, parseMountTable } from "../../hal/linux/mount-table.ts";
import { whatIsWrong } from "../../hal/linux/mount-watch.ts";

describe("/proc/self/mountinfo", () => {
  test("optional fields and escapes", () => {
    const text = `21 1 254:0 / / rw,noatime - ext4 /dev/root rw
55 21 7:1 / /run/dyad/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/loop1 rw,errors=remount-ro
56 21 0:5 / /tab\\011x rw - tmpfs no\\134ne rw
`;
    expect(parseMountTable(text)).toEqual([
      {
        ...{ path: "/", source: "/dev/root", type: "ext4" },
        ...{ device: "254:0", options: ["rw", "noatime"], superOptions: ["rw"] },
      },
      {
        ...{ path: "/run/dyad/a b", source: "/dev/loop1", type: "ext4" },
        ...{ device: "7:1", options: ["rw", "noatime"], superOptions: ["rw", "errors=remount-ro"] },
      },
      {
        ...{ path: "/tab\tx", source: "no\\ne", type: "tmpfs" },
        ...{ device: "0:5", options: ["rw"], superOptions: ["rw"] },
      },
    ]);
  });

  test("only what is wanted is made of it, by its path as it is", () => {
    const text = `21 1 254:0 / / rw - ext4 /dev/root rw
55 21 7:1 / /run/a\\040b rw shared:1 - ext4 /dev/loop1 rw
56 21 7:2 /run/a\\040b /other rw - ext4 /run/a\\040b rw`;
    const asked: string[] = [];
    const found = parseMountTable(text, (path) => {
      asked.push(path);
      return path === "/run/a b";
    });
    expect(asked).toEqual(["/", "/run/a b", "/other"]);
    expect(found.map(({ path, source }) => [path, source])).toEqual([["/run/a b", "/dev/loop1"]]);
  });

  test("lines of another form are skipped", () => {
    expect(parseMountTable("\n21 1 254:0 / /\nx - y\n - \n")).toEqual([]);
  });

  test("the kernel's own table is read", () => {
    const proc = mountAt("/proc");
    expect(proc.ok && proc.value?.type).toBe("proc");
    expect(mountAt("/no/such/mount")).toEqual({ ok: true, value: undefined });
  });

  test("several paths are looked up at once; one where nothing is mounted is left out", () => {
    const found = mountsAt(new Set(["/proc", "/no/such/mount", "/"]));
    expect(found.ok && [...found.value.keys()].sort()).toEqual(["/", "/proc"]);
  });
});

describe("a mount that is watched", () => {
  const line = (source: string, options: string, superOptions: string) =>
    parseMountTable(`9 1 7:1 / /v ${options} - ext4 ${source} ${superOptions}`)[0];

  test.each<[string, ReturnType<typeof line>, string | undefined]>([
    ["as it should be", line("/dev/loop1", "rw,noatime", "rw,errors=remount-ro"), undefined],
    ["after an error, since 6.15", line("/dev/loop1", "rw", "rw,emergency_ro"), "read-only after"],
    ["after an error, before", line("/dev/loop1", "rw", "ro,errors=remount-ro"), "read-only"],
    ["made read-only for itself", line("/dev/loop1", "ro,noatime", "rw"), "read-only"],
    ["shut", line("/dev/loop1", "rw", "rw,shutdown"), "shut down"],
    ["covered by another", line("/dev/loop2", "rw", "rw"), "/dev/loop2 is mounted over"],
    ["gone", undefined, "not mounted"],
  ])("%s", (_, entry, wrong) => {
    const found = whatIsWrong(entry, "/dev/loop1");
    if (wrong === undefined) expect(found).toBeUndefined();
    else expect(found).toContain(wrong);
  });
});
