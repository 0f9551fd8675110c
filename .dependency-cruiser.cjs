// The import rules of docs/ARCHITECTURE.md. Each rule lists what a room may import; all else is an error.
/** @param {string} name @param {string} from @param {string[]} to */
const only = (name, from, to) => ({
  name,
  severity: "error",
  from: { path: from },
  to: { path: "^(firmware-ts|hal|bench|test|scripts)/", pathNot: to },
});

/** Rooms that stay pure may not reach the system: no node builtin but those listed. */
const pure = (name, from, allowedCore) => ({
  name,
  severity: "error",
  from: { path: from },
  to: { dependencyTypes: ["core"], pathNot: allowedCore },
});

module.exports = {
  forbidden: [
    { name: "no-circular", severity: "error", from: {}, to: { circular: true } },
    only("schema-imports-nothing", "^firmware-ts/schema/", ["^firmware-ts/schema/"]),
    only("wire-imports-schema", "^firmware-ts/wire/", ["^firmware-ts/(wire|schema)/"]),
    only("core-imports-schema", "^firmware-ts/core/", ["^firmware-ts/(core|schema)/"]),
    only("loop-imports-core", "^firmware-ts/loop/", ["^firmware-ts/(loop|core|schema)/"]),
    only("port-imports-schema", "^hal/port/", ["^hal/port/", "^firmware-ts/schema/"]),
    only("shelf", "^hal/shelf/", ["^hal/(shelf|port)/", "^firmware-ts/(wire|schema)/"]),
    only("block", "^hal/block/", ["^hal/(block|port)/", "^firmware-ts/(wire|schema)/"]),
    only("linux", "^hal/linux/", ["^hal/(linux|port)/", "^firmware-ts/(wire|schema)/"]),
    only("bench-hal", "^hal/bench/", [
      "^hal/(bench|port|block|shelf|linux)/",
      "^firmware-ts/(wire|schema)/",
    ]),
    // The simulator runs the production decisions and loops in virtual time, over the pure disk model of the shelf.
    only("sim", "^hal/sim/", [
      "^hal/(sim|port)/",
      "^hal/shelf/disk/",
      "^firmware-ts/(loop|core|wire|schema)/",
    ]),
    // Virtual time and seeds only: what reaches the system is the command line and its workers.
    pure("sim-is-pure", "^hal/sim/(?!cli/)", "^(node:)?(zlib|crypto|buffer)$"),
    only("daemon", "^firmware-ts/daemon/(?!wiring)", [
      "^firmware-ts/(daemon|loop|core|wire|schema|telemetry)/",
      "^hal/port/",
    ]),
    only("telemetry", "^firmware-ts/telemetry/", ["^firmware-ts/(telemetry|schema|wire)/"]),
    // The register is decided by one function in the built-in witness and in front of etcd.
    only("witness", "^hal/witness/", [
      "^hal/(witness|port)/",
      "^firmware-ts/(schema|core/witness)/",
    ]),
    // `dyad config check` judges a file as the daemon does: by the same function. A witness has no daemon: the command is its process.
    only("cli", "^firmware-ts/cli/", [
      "^firmware-ts/(cli|schema|wire)/",
      "^firmware-ts/core/config-check\\.ts$",
      ...["^firmware-ts/core/witness/", "^hal/(witness|port)/", "^hal/linux/pair-key\\.ts$"],
    ]),
    {
      name: "nothing-imports-daemon",
      severity: "error",
      from: { path: "^(firmware-ts/(?!daemon/)|hal/|bench/)" },
      to: { path: "^firmware-ts/daemon/" },
    },
    pure("schema-is-pure", "^firmware-ts/schema/", "^$"),
    pure("core-is-pure", "^firmware-ts/core/", "^$"),
    pure("loop-is-pure", "^firmware-ts/loop/", "^$"),
    // Checksums and message authentication are pure functions of bytes.
    pure("wire-is-pure", "^firmware-ts/wire/", "^(node:)?(zlib|crypto|buffer)$"),
    {
      name: "devices-only-in-hal",
      severity: "error",
      from: { path: "^firmware-ts/", pathNot: "^firmware-ts/(daemon|cli)/" },
      to: { path: "node_modules/(serialport|koffi|node-hid)/" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { extensions: [".ts", ".js", ".cjs"] },
  },
};
