// A gateway made from the project's .proto files by another language. It prints
// one JSON object per response, and ACKs as a deployed enforcer does.
//
// usage: node gateway.js <address> <descriptor set> [version]
'use strict';

const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const TYPE_URL = 'type.googleapis.com/wso2.discovery.keymgt.RevokedToken';
const [address, descriptors, version] = process.argv.slice(2);

const definition = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(descriptors), { longs: String });
const services = grpc.loadPackageDefinition(definition);
const RevokedToken = definition['wso2.discovery.keymgt.RevokedToken'];
const Service = services.wso2.discovery.service.keymgt.RevokedTokenDiscoveryService;

const client = new Service(address, grpc.credentials.createInsecure());
const stream = client.StreamTokens();

function decode(any) {
  const message = RevokedToken.deserialize(any.value);
  return { jti: message.jti, expirytime: String(message.expirytime) };
}

stream.on('data', (response) => {
  console.log(JSON.stringify({
    version: response.version_info,
    types: [...new Set(response.resources.map((any) => any.type_url))],
    tokens: response.resources.map(decode),
  }));
  stream.write({ version_info: response.version_info, response_nonce: response.nonce, type_url: TYPE_URL });
});
stream.on('error', (error) => {
  console.log(JSON.stringify({ ended: error.code }));
  client.close();
});
stream.on('end', () => client.close());

stream.write({
  node: {
    id: 'commonEnforcerLabel',
    metadata: { fields: [{ key: 'instanceIdentifier', value: { string_value: 'node-gateway' } }] },
  },
  version_info: version || '',
  type_url: TYPE_URL,
});
