// Signs a webhook as LiveKit does, with the official server SDK for Node.js.
//
// usage: webhook.mjs KEY SECRET TTL_SECONDS BODY

import { createHash } from 'node:crypto';
import { AccessToken } from 'livekit-server-sdk';

const [key, secret, ttl, body] = process.argv.slice(2);
const token = new AccessToken(key, secret, { ttl: Number(ttl) });
token.sha256 = createHash('sha256').update(body).digest('base64');
console.log(await token.toJwt());
