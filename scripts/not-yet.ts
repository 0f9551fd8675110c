/** Commands whose names are already promised to users but whose work has its own open issue. */
const what = process.argv[2] ?? "this";
console.error(`${what}: not built yet; see "What it does not do" in README.md`);
process.exit(2);
