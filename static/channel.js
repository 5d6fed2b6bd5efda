// The control channel of edge.v1 (docs/PROTOCOL.md).
//
//   Connection   one WebSocket: handshake, heartbeat, why it closed
//   Channel      one session over any number of connections: resumes, renews the control token, gives up

const HANDSHAKE_TIMEOUT_MS = 10_000;
const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 8_000;
// A connection that lasted this long was good: the next failure counts as the first one.
const STABLE_AFTER_MS = 1_000;
const MAX_UNANSWERED_PINGS = 3;
const RESUME_ACK_EVERY = 32;
// The gateway pushes a fresh token five minutes before the end. This is for where that push is missing.
const MAX_RENEWAL_LEAD_MS = 120_000;
const MAX_TIMEOUT_MS = 2 ** 31 - 1; // setTimeout fires at once for anything longer

const SUPERSEDED = 4001;
const TOKEN_ENDED = 4401;
const RETRIED = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1015, 4408, 4429]);
const FINAL_REASONS = new Set(['logout', 'disconnected', 'grace_expired']);

// Ends early when the signal is aborted.
const sleep = (ms, signal) => new Promise((resolve) => {
  const end = () => {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
    resolve();
  };
  const timer = setTimeout(end, ms);
  signal.addEventListener('abort', end);
});

// Why a connection closed, and what follows from it.
export class ChannelClosed extends Error {
  // `refusal` is the connection_error and `endReason` the reason of the session_end that came before the close.
  constructor({ code, reason = '' }, { refusal, endReason } = {}) {
    super();
    this.code = code;
    this.retryAfterMs = refusal?.retryAfterMs ?? 0;
    this.isSuperseded = code === SUPERSEDED || endReason === 'superseded';
    this.isTokenEnded = code === TOKEN_ENDED;
    this.isSessionOver = code === 1000 || FINAL_REASONS.has(endReason) || refusal?.code === 'SESSION_NOT_FOUND';
    this.isFinal = this.isSuperseded || this.isSessionOver
      || (!this.isTokenEnded && !(refusal?.retryable ?? RETRIED.has(code)));
    this.message = this.#describe(reason, refusal, endReason);
  }

  #describe(reason, refusal, endReason) {
    if (this.isSuperseded) return 'This session is now open in another tab or on another device.';
    if (endReason === 'disconnected') return 'An operator disconnected this session.';
    if (this.isSessionOver) return 'The session has ended.';
    if (this.code === 1006) return 'The gateway cannot be reached.';
    const why = refusal?.message || reason || `close code ${this.code}`;
    return `The gateway closed the connection: ${why}.`;
  }
}

class Connection {
  #socket;
  #close;
  #unansweredPings = 0;
  #heartbeat;
  #handshakeTimeout;
  #context = {};

  isAttached = false;

  // Resolves with a ChannelClosed.
  closed = new Promise((resolve) => { this.#close = resolve; });

  // Resolves with the connection_ack, or rejects with a ChannelClosed.
  attached;

  constructor(url, init, { onMessage, onAudio }) {
    // The token goes into connection_init and not into the URL: URLs end up in the logs of proxies, and only an
    // opened WebSocket tells a script why it was refused.
    const socket = new WebSocket(url, 'edge.v1');
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    this.attached = new Promise((resolve, reject) => {
      this.closed.then(reject);
      socket.onmessage = ({ data }) => {
        this.#unansweredPings = 0;
        if (data instanceof ArrayBuffer) return onAudio(data);
        const message = JSON.parse(data);
        if (message.type === 'connection_ack') {
          this.isAttached = true;
          clearTimeout(this.#handshakeTimeout);
          this.#heartbeat = setInterval(() => this.#ping(), message.heartbeatMs);
          resolve(message);
        } else if (message.type === 'connection_error') {
          this.#context.refusal = message;
        } else if (message.type === 'session_end') {
          this.#context.endReason = message.reason;
        }
        onMessage(message);
      };
    });
    this.attached.catch(() => {}); // also told by `closed`
    socket.onopen = () => this.send(init);
    socket.onclose = (event) => this.#finish(event);
    this.#handshakeTimeout = setTimeout(() => this.close(1006, 'no answer to the handshake'), HANDSHAKE_TIMEOUT_MS);
  }

  send(message) {
    this.sendBytes(JSON.stringify(message));
  }

  sendBytes(data) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(data);
  }

  // Counts as closed at once: the closing handshake of a dead connection takes the browser minutes.
  close(code, reason) {
    this.#socket.onmessage = null;
    this.#socket.close();
    this.#finish({ code, reason });
  }

  #finish(event) {
    this.isAttached = false;
    clearTimeout(this.#handshakeTimeout);
    clearInterval(this.#heartbeat);
    this.#close(new ChannelClosed(event, this.#context));
  }

  // Counts pings and not time, because browsers slow the timers of hidden tabs down.
  #ping() {
    if (this.#unansweredPings === MAX_UNANSWERED_PINGS) return this.close(1006, 'no sign of life from the gateway');
    this.#unansweredPings += 1;
    this.send({ type: 'ping', t: Date.now() });
  }
}

export class Channel {
  #url;
  #token;
  #capabilities;
  #renewControlToken;
  #events;
  #connection = null;
  #resume = null;
  #lastSeq = 0;
  #acknowledgedSeq = 0;
  #audioSeq = 0;
  #tokenEndsAt = null; // seconds since the Unix epoch, by the gateway's clock
  #clockOffsetMs = 0; // the gateway's clock minus this one
  #renewal;
  #stop = new AbortController();

  // `renewControlToken` resolves with the fields of POST /api/sessions/{id}/control-token. `events` are
  // onAttached(ack), onMessage(message), onAudio(buffer), onDisconnected() and onClosed(error): the channel is given up.
  constructor(session, capabilities, renewControlToken, events) {
    this.#capabilities = capabilities;
    this.#renewControlToken = renewControlToken;
    this.#events = events;
    this.#take(session);
  }

  get isAttached() {
    return this.#connection?.isAttached ?? false;
  }

  // Attaches once. From then on the channel reconnects by itself, until onClosed or close().
  async open() {
    await this.#attach();
    this.#stayAttached();
  }

  // Dropped while there is no connection.
  send(message) {
    this.#connection?.send(message);
  }

  // Sends 16 kHz mono samples (docs/PROTOCOL.md, "Sound up").
  sendAudio(samples) {
    if (!this.isAttached) return;
    const frame = new DataView(new ArrayBuffer(16 + samples.byteLength));
    frame.setUint8(0, 0xe1);
    frame.setUint8(1, 1);
    frame.setUint32(4, ++this.#audioSeq);
    frame.setBigUint64(8, BigInt(Math.round(performance.now())));
    samples.forEach((sample, n) => frame.setInt16(16 + n * 2, sample, true));
    this.#connection.sendBytes(frame.buffer);
  }

  // Ends the session.
  close() {
    this.#stop.abort();
    clearTimeout(this.#renewal);
    this.#connection?.send({ type: 'goodbye' });
    this.#connection?.close(1000, '');
  }

  #take({ control_url: url, control_token: token, control_token_expires_at: endsAt }) {
    this.#url = url ?? this.#url;
    this.#token = token;
    this.#tokenEndsAt = endsAt ?? null;
  }

  #attach() {
    const init = {
      type: 'connection_init', protocol: 'edge.v1', token: this.#token, capabilities: this.#capabilities,
      ...(this.#resume && {
        resume: { ...this.#resume, lastServerSeq: this.#lastSeq, lastAudioSeq: this.#audioSeq },
      }),
    };
    this.#connection = new Connection(this.#url, init, {
      onMessage: (message) => this.#receive(message),
      onAudio: (buffer) => this.#events.onAudio(buffer),
    });
    return this.#connection.attached;
  }

  async #stayAttached() {
    const { signal } = this.#stop;
    let wait = FIRST_RETRY_MS;
    let attachedAt = performance.now();
    let tokenEnded = false;
    let isFresh = false; // the token was renewed and has not attached yet
    for (;;) {
      const closed = await this.#connection.closed;
      clearTimeout(this.#renewal);
      if (signal.aborted) return;
      if (closed.isFinal || (closed.isTokenEnded && isFresh)) return this.#events.onClosed(closed);
      this.#events.onDisconnected();
      if (performance.now() - attachedAt >= STABLE_AFTER_MS) wait = FIRST_RETRY_MS;
      attachedAt = Infinity; // until it is attached again
      // Half to all of the wait, so that clients that lost their connections together do not return together.
      await sleep(closed.retryAfterMs + wait * (0.5 + Math.random() / 2), signal);
      wait = Math.min(wait * 2, MAX_RETRY_MS);
      if (signal.aborted) return;

      tokenEnded ||= closed.isTokenEnded;
      if (tokenEnded) {
        try {
          this.#take(await this.#renewControlToken());
          tokenEnded = false;
          isFresh = true;
        } catch (error) {
          if (signal.aborted) return;
          // Without an answer, or with a fault of the gateway's, it is tried again.
          if (error.status >= 400 && error.status < 500 && error.status !== 429) return this.#events.onClosed(error);
          continue;
        }
        if (signal.aborted) return;
      }
      try {
        await this.#attach();
        attachedAt = performance.now();
        isFresh = false;
      } catch {
        // `closed` says why.
      }
    }
  }

  #receive(message) {
    if (message.type === 'connection_ack') {
      this.#acknowledged(message);
    } else if (message.type === 'control_token') {
      this.#token = message.controlToken;
      this.#tokenEndsAt = message.expiresAt;
      this.#scheduleRenewal();
      return;
    } else if (message.seq) {
      if (message.seq <= this.#lastSeq) return; // sent again after a resume
      this.#lastSeq = message.seq;
      if (this.#lastSeq - this.#acknowledgedSeq >= RESUME_ACK_EVERY) {
        this.#acknowledgedSeq = this.#lastSeq;
        this.send({ type: 'resume_ack', lastServerSeq: this.#lastSeq });
      }
    }
    this.#events.onMessage(message);
  }

  #acknowledged(ack) {
    this.#resume = { sessionId: ack.sessionId, resumeToken: ack.resumeToken };
    this.#clockOffsetMs = Date.parse(ack.timestamp) - Date.now();
    if (!ack.resumed) {
      this.#lastSeq = 0;
      this.#acknowledgedSeq = 0;
    }
    this.#scheduleRenewal();
    this.#events.onAttached(ack);
  }

  // Asks for a fresh token before this one ends, unless the gateway pushes one sooner.
  #scheduleRenewal() {
    clearTimeout(this.#renewal);
    if (this.#tokenEndsAt === null) return;
    const lifeMs = Math.max(0, this.#tokenEndsAt * 1000 - Date.now() - this.#clockOffsetMs);
    const delayMs = lifeMs - Math.min(MAX_RENEWAL_LEAD_MS, lifeMs / 4);
    this.#renewal = setTimeout(() => this.send({ type: 'renew_token', id: 'renewal' }), Math.min(delayMs, MAX_TIMEOUT_MS));
  }
}
