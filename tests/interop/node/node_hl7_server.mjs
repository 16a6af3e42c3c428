// node node_hl7_server.mjs PORT MODE: print MSH-10 of each message and answer AA, AE, AR, late (AA after 10 s) or nothing.
import { Server } from "node-hl7-server";

const [port, mode] = process.argv.slice(2);
const server = new Server({ bindAddress: "127.0.0.1" });
const inbound = server.createInbound({ port: Number(port) }, async (request, response) => {
  console.log(request.getMessage().get("MSH.10").toString());
  if (mode === "nothing") return;
  if (mode === "late") await new Promise((resolve) => setTimeout(resolve, 10000));
  await response.sendResponse(mode === "late" ? "AA" : mode);
});
inbound.on("listen", () => console.log("listening"));
