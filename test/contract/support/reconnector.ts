/**
 * A client that talks all the time and comes back at once when its connection ends: `reconnector.ts ADDRESS PORT`.
 * Prints `NAME` of the server at the first answer of each connection, and `lost` at its end.
 */
import { connect } from "node:net";

const [address = "", port = ""] = process.argv.slice(2);

function begin(): void {
  const socket = connect({ host: address, port: Number(port), noDelay: true });
  const timer = setInterval(() => socket.write("."), 20);
  socket.once("data", (name) => console.log(name.toString("latin1", 0, 1)));
  socket.on("data", () => {});
  socket.on("error", () => {});
  socket.on("close", () => {
    clearInterval(timer);
    console.log("lost");
    setTimeout(begin, 1);
  });
}

begin();
