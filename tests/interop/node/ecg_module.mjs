// The first multiplex group as OHIF's decoder reads it: JSON {labels, samplingFrequency, samples}; counts as they are.
import { readFileSync } from 'node:fs';
import dcmjs from 'dcmjs';
import { utilities } from '@cornerstonejs/metadata';

dcmjs.log.setLevel?.('error');
const file = readFileSync(process.argv[2]);
const data = dcmjs.data.DicomMessage.readFile(file.buffer.slice(file.byteOffset, file.byteOffset + file.length));
const instance = dcmjs.data.DicomMetaDictionary.naturalizeDataset(data.dict);
const build = utilities.metadataProvider?.buildEcgModuleFromInstance ?? utilities.buildEcgModuleFromInstance;
const module = build(instance);
const samples = await module.waveformData.retrieveBulkData();
process.stdout.write(JSON.stringify({
  labels: module.channelDefinitionSequence.map(channel => channel.channelSourceSequence.codeMeaning),
  samplingFrequency: module.samplingFrequency,
  samples: samples.map(channel => Array.from(channel)),
}));
