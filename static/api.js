// The REST calls of the talk page (docs/REST.md).

const REQUEST_TIMEOUT_MS = 10_000;

// A request that was refused or not answered. `status` is 0 where no answer came.
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(method, path, key, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: {
        ...(body && { 'Content-Type': 'application/json' }),
        ...(key && { Authorization: `Bearer ${key}` }),
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  } catch {
    throw new ApiError(0, 'The gateway cannot be reached.');
  }
  // A proxy in front of the gateway may answer without JSON.
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new ApiError(response.status, `The gateway refused: ${answer.detail ?? `status ${response.status}`}.`);
  }
  return answer;
}

const pathOf = (sessionId) => `/api/sessions/${encodeURIComponent(sessionId)}`;

export const createSession = (key) => call('POST', '/api/sessions', key, { user_id: 'talk-page' });

export const endSession = (sessionId, key) => call('DELETE', pathOf(sessionId), key);

// A fresh control token for a session.
export async function renewControlToken(sessionId, key) {
  const path = pathOf(sessionId);
  try {
    return await call('POST', `${path}/control-token`, key);
  } catch (error) {
    // A gateway before edge.v1's token renewal has no such route; there the session itself comes with fresh tokens.
    if (error.status !== 404 && error.status !== 405) throw error;
    return call('GET', path, key);
  }
}
