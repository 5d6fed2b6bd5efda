// What a session costs with LiveKit's own SDK for Node.js: an HTTP server whose one handler reads the
// user's name, signs a token and answers with it. It prints its port.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { randomBytes } from 'node:crypto';

const { AccessToken, TrackSource } =
  createRequire(new URL('../../tests/e2e/package.json', import.meta.url))('livekit-server-sdk');
const [key, secret, url] = process.argv.slice(2);

async function session(body) {
  const { user_id: user } = JSON.parse(body);
  const room = `room-${user}-${randomBytes(3).toString('hex')}`;
  const token = new AccessToken(key, secret, { identity: user, ttl: 300 });
  token.addGrant({
    roomJoin: true,
    room,
    canPublish: true,
    canPublishData: true,
    canPublishSources: [TrackSource.MICROPHONE],
    canSubscribe: false,
  });
  return { room_name: room, access_token: await token.toJwt(), livekit_url: url, status: 'active' };
}

const server = createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => (body += chunk));
  request.on('end', async () => {
    const answer = JSON.stringify(await session(body));
    response.writeHead(201, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(answer) });
    response.end(answer);
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
