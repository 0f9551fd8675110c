/** Block path and takeover figures; see bench/. */
console.error("perf: not built yet");
process.exit(2);
