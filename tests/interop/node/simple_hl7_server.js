// node simple_hl7_server.js PORT MODE: print MSH-10 of each message and answer AA, AE, AR, twice (AA) or wrong (another MSA-2).
const hl7 = require("simple-hl7");

const [port, mode] = process.argv.slice(2);
const app = hl7.tcp();
app.use((request, response) => {
  console.log(request.msg.header.getField(8));
  const msa = response.ack.getSegment("MSA");
  if (mode === "AE" || mode === "AR") msa.setField(1, mode);
  if (mode === "wrong") msa.setField(2, "SOMEBODY-ELSES");
  response.end();
  if (mode === "twice") response.end();
});
app.start(Number(port));
console.log("listening");
