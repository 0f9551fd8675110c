/** A TCP server that never stops talking: `chatter.ts ADDRESS PORT`. Each connection gets 1 kB every 5 ms. */
import { createServer } from "node:net";

const [address = "", port = ""] = process.argv.slice(2);
const server = createServer((socket) => {
  const timer = setInterval(() => socket.write(Buffer.alloc(1000, 1)), 5);
  socket.on("error", () => {}).on("close", () => clearInterval(timer));
  socket.on("data", () => {});
});
server.listen(Number(port), address, () => console.log("listening"));
