/** A TCP server that answers every chunk with its own name: `server.ts NAME ADDRESS PORT`. */
import { createServer } from "node:net";

const [name = "", address = "", port = ""] = process.argv.slice(2);
const server = createServer((socket) => {
  socket.on("error", () => {}).on("data", () => socket.write(name));
});
server.listen(Number(port), address, () => console.log("listening"));
