// node simple_hl7_client.js PORT FILE...: send each file over one connection; print "MSA-1 MSA-2" of each answer.
const fs = require("node:fs");
const hl7 = require("simple-hl7");

const [port, ...files] = process.argv.slice(2);
const client = hl7.Server.createTcpClient({ host: "127.0.0.1", port: Number(port), keepalive: true });
const next = () => {
  if (!files.length) return client.close ? client.close() : process.exit(0);
  client.send(new hl7.Parser().parse(fs.readFileSync(files.shift(), "utf8")), (error, ack) => {
    if (error) throw error;
    const msa = ack.getSegment("MSA");
    console.log(`${msa.getField(1)} ${msa.getField(2)}`);
    setImmediate(next); // it still holds this answer to be awaited
  });
};
next();
setTimeout(() => process.exit(0), 5000).unref();
