// The talk page: a client of edge.v1 in one file (docs/PROTOCOL.md).
//
//   Channel   the WebSocket, which comes back by itself and resumes
//   Player    plays the answer's frames, drops those of an answer that was cut
//   microphones: in the LiveKit room, or as binary frames on the channel

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// --- The control channel --------------------------------------------------------------------------

class Channel {
  constructor(session, capabilities, heard) {
    this.session = session;
    this.capabilities = capabilities;
    this.heard = heard;
    this.lastSeq = 0;
    this.resume = null;
    this.audioSeq = 0;
    this.ended = false;
  }

  // Resolves with the acknowledgement of the first attachment; from then on it keeps itself attached.
  async open() {
    const ack = await this.attach();
    this.stay();
    return ack;
  }

  attach() {
    return new Promise((attached, failed) => {
      const url = `${this.session.control_url}?token=${encodeURIComponent(this.session.control_token)}`;
      const socket = new WebSocket(url, 'edge.v1');
      socket.binaryType = 'arraybuffer';
      this.socket = socket;
      this.closed = new Promise((closed) => { socket.onclose = closed; });
      this.closed.then((event) => failed(new Error(event.reason || `the channel closed (${event.code})`)));
      socket.onopen = () => this.say({
        type: 'connection_init', protocol: 'edge.v1', capabilities: this.capabilities,
        ...(this.resume && { resume: { ...this.resume, lastServerSeq: this.lastSeq, lastAudioSeq: this.audioSeq } }),
      });
      socket.onmessage = ({ data }) => {
        if (data instanceof ArrayBuffer) return this.heard.sound(data);
        const message = JSON.parse(data);
        if (message.seq) this.lastSeq = Math.max(this.lastSeq, message.seq);
        if (message.type === 'connection_ack') {
          this.resume = { sessionId: message.sessionId, resumeToken: message.resumeToken };
          attached(message);
        }
        this.heard.message(message);
      };
    });
  }

  async stay() {
    for (let wait = 250; !this.ended;) {
      await this.closed;
      if (this.ended) return;
      this.heard.away();
      await sleep(wait + Math.random() * 250);
      try {
        await this.attach();
        wait = 250;
      } catch {
        wait = Math.min(wait * 2, 10_000);
      }
    }
  }

  say(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // A frame of 16 kHz mono samples, behind the 16-byte header of protocol.md §7.3.
  sound(samples) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    const frame = new DataView(new ArrayBuffer(16 + samples.byteLength));
    frame.setUint8(0, 0xe1);
    frame.setUint8(1, 1);
    frame.setUint32(4, ++this.audioSeq);
    frame.setBigUint64(8, BigInt(Math.round(performance.now())));
    samples.forEach((sample, n) => frame.setInt16(16 + n * 2, sample, true));
    this.socket.send(frame.buffer);
  }

  close() {
    this.ended = true;
    this.say({ type: 'goodbye' });
    this.socket.close();
  }
}

// --- The loudspeaker ------------------------------------------------------------------------------

class Player {
  constructor(report) {
    this.context = new AudioContext();
    this.report = report;
    this.generation = 0;
    this.playing = new Set();
    setInterval(() => this.reportPlayhead(), 250);
  }

  begin(generation, rate) {
    this.stop();
    Object.assign(this, { generation, rate, position: 0, end: 0, played: [] });
  }

  // A frame: 0xE2, version, codec, flags, generation, position, then 16-bit samples.
  take(buffer) {
    const header = new DataView(buffer);
    const generation = header.getUint32(4);
    const position = Number(header.getBigUint64(8));
    if (generation !== this.generation || position < this.position) return;
    const samples = new Int16Array(buffer, 16);
    this.position = position + samples.length;
    if (!samples.length) return;
    const sound = this.context.createBuffer(1, samples.length, this.rate);
    const channel = sound.getChannelData(0);
    samples.forEach((sample, n) => { channel[n] = sample / 32768; });
    const source = new AudioBufferSourceNode(this.context, { buffer: sound });
    source.connect(this.context.destination);
    const at = Math.max(this.end, this.context.currentTime + 0.02);
    this.end = at + sound.duration;
    this.played.push({ at, position, length: samples.length });
    source.onended = () => this.playing.delete(source);
    this.playing.add(source);
    source.start(at);
  }

  stop() {
    for (const source of this.playing) source.stop();
    this.playing.clear();
  }

  reportPlayhead() {
    if (!this.generation || !this.played.length) return;
    const now = this.context.currentTime;
    while (this.played.length > 1 && this.played[1].at <= now) this.played.shift();
    const [{ at, position, length }] = this.played;
    const samples = position + Math.min(length, Math.max(0, (now - at) * this.rate));
    this.report(this.generation, Math.round(samples * 1000 / this.rate));
  }
}

// --- Microphones ----------------------------------------------------------------------------------

// LiveKit's client, where the gateway has it; null where not.
async function livekitClient() {
  if (new URLSearchParams(location.search).get('media') === 'ws') return null;
  await new Promise((loaded) => {
    const script = Object.assign(document.createElement('script'), { src: '/vendor/livekit-client.js' });
    script.onload = script.onerror = loaded;
    document.head.append(script);
  });
  return globalThis.LivekitClient ?? null;
}

async function microphoneInRoom({ Room }, { url, token }) {
  const room = new Room();
  await room.connect(url, token);
  await room.localParticipant.setMicrophoneEnabled(true);
  return () => room.disconnect();
}

async function microphoneOnChannel(channel) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true },
  });
  const context = new AudioContext({ sampleRate: 16_000 });
  await context.audioWorklet.addModule('/static/microphone.js');
  const worklet = new AudioWorkletNode(context, 'microphone', { numberOfOutputs: 0 });
  worklet.port.onmessage = ({ data }) => channel.sound(data);
  context.createMediaStreamSource(stream).connect(worklet);
  return () => {
    stream.getTracks().forEach((track) => track.stop());
    return context.close();
  };
}

// --- The conversation as it is shown --------------------------------------------------------------

const lines = new Map();

function line(key, who, kind, text) {
  let item = lines.get(key);
  if (!item) {
    item = document.createElement('li');
    item.dataset.who = who;
    lines.set(key, item);
    $('conversation').append(item);
  }
  item.className = kind;
  item.textContent = text;
  item.scrollIntoView({ block: 'end' });
  return item;
}

const note = (text) => line(`note ${lines.size}`, '', 'note', text);
const status = (text) => { $('status').textContent = text; };

const present = new Map();

function participants({ snapshot, diff }) {
  if (snapshot) present.clear();
  for (const leave of diff?.left ?? []) present.delete(leave.sid);
  for (const there of [...(snapshot ?? []), ...(diff?.joined ?? []), ...(diff?.updated ?? [])]) {
    present.set(there.sid, there);
  }
  $('present').textContent = [...present.values()].map(({ identity, name }) => name || identity).join(', ') || 'nobody';
}

const answers = new Map();

function show(message, player) {
  switch (message.type) {
    case 'connection_ack':
      status(message.resumed ? 'Back again' : 'Listening');
      $('session').textContent = message.sessionId;
      break;
    case 'media_state':
      $('media').textContent = `${message.active} (${message.reason.replaceAll('_', ' ')})`;
      break;
    case 'stt_state':
      if (message.message) note(message.message);
      break;
    case 'speech_started':
      status('Hearing you');
      break;
    case 'speech_ended':
      status('Listening');
      break;
    case 'data_stream': {
      const { utteranceId, text, isFinal } = message.data;
      const item = line(utteranceId, 'You', isFinal ? 'you' : 'interim', text);
      if (isFinal && !text) item.remove();
      break;
    }
    case 'answer_delta':
      answers.set(message.turnId, (answers.get(message.turnId) ?? '') + message.text);
      line(message.turnId, 'June', 'june', answers.get(message.turnId));
      break;
    case 'answer_done':
      if (message.text) line(message.turnId, 'June', message.finish === 'stop' ? 'june' : 'june cut', message.text);
      answers.delete(message.turnId);
      break;
    case 'speech_begin':
      player.begin(message.generation, message.sampleRate);
      break;
    case 'audio_stop_request':
      player.stop();
      break;
    case 'turn_metrics': {
      const steps = { final: message.finalMs, 'first word': message.firstTokenMs, 'first sound': message.firstAudioMs };
      $('timing').textContent = Object.entries(steps)
        .filter(([, ms]) => ms !== undefined).map(([step, ms]) => `${step} after ${ms} ms`).join(', ');
      break;
    }
    case 'participants:update':
      participants(message);
      break;
    case 'session_end':
      status('The session has ended');
      break;
    case 'error':
    case 'connection_error':
      note(message.message);
      break;
  }
}

// --- Start and stop -------------------------------------------------------------------------------

async function createSession() {
  const key = $('key').value;
  const response = await fetch('/api/sessions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...(key && { Authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ user_id: 'talk-page' }),
  });
  const body = await response.json();
  if (response.status === 401) $('login').hidden = false;
  if (!response.ok) throw new Error(body.detail);
  return body;
}

let stop = null;

async function start() {
  status('Connecting');
  const session = await createSession();
  $('room').textContent = session.room_name;
  const livekit = session.livekit_url ? await livekitClient() : null;
  const player = new Player((generation, playedMs) => channel.say({ type: 'playhead', generation, playedMs }));
  const channel = new Channel(session, { media: livekit ? ['livekit', 'ws'] : ['ws'], vad: false }, {
    message: (message) => show(message, player),
    sound: (frame) => player.take(frame),
    away: () => status('Connection lost, coming back'),
  });
  const ack = await channel.open();
  channel.say({ type: 'subscribe:participants' });
  let stopMicrophone;
  try {
    if (!livekit || !ack.livekit) throw new Error('no LiveKit');
    stopMicrophone = await microphoneInRoom(livekit, ack.livekit);
  } catch {
    stopMicrophone = await microphoneOnChannel(channel);
  }
  $('line').disabled = false;
  $('typed').onsubmit = (event) => {
    event.preventDefault();
    const text = $('line').value.trim();
    $('line').value = '';
    if (!text) return;
    line(`typed ${lines.size}`, 'You', 'you', text);
    channel.say({ type: 'say', text });
  };
  return async () => {
    $('line').disabled = true;
    player.stop();
    await stopMicrophone();
    channel.close();
    status('Not connected');
  };
}

$('start').onclick = async () => {
  const button = $('start');
  button.disabled = true;
  try {
    if (stop) {
      await stop();
      stop = null;
    } else {
      stop = await start();
    }
  } catch (error) {
    status('Not connected');
    note(error.message);
  }
  button.textContent = stop ? 'Stop' : 'Talk';
  button.setAttribute('aria-pressed', String(Boolean(stop)));
  button.disabled = false;
};
