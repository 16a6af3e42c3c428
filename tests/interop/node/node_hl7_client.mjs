// node node_hl7_client.mjs PORT FILE...: send each file over one connection; print "MSA-1 MSA-2" of each answer.
import fs from "node:fs";
import { Client, Message } from "node-hl7-client";

const [port, ...files] = process.argv.slice(2);
const client = new Client({ host: "127.0.0.1" });
let answered;
const connection = client.createConnection({ port: Number(port) }, async (response) => {
  const message = response.getMessage();
  console.log(`${message.get("MSA.1").toString()} ${message.get("MSA.2").toString()}`);
  answered();
});
for (const file of files) {
  const answer = new Promise((resolve) => (answered = resolve));
  await connection.sendMessage(new Message({ text: fs.readFileSync(file, "utf8") }));
  await answer;
}
await connection.close();
process.exit(0);
