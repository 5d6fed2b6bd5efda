// The talk page in a Chromium of its own, and what a scenario asks of it and of its gateway.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { chromium } = require('playwright-core');

const { asMicrophone } = require('./recording.js');

// How long to wait for what a busy machine does soon.
const SOON_MS = 20_000;

// Asks again and again, until there is what was waited for.
async function until(what, ask) {
  const deadline = Date.now() + SOON_MS;
  while (!await ask()) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${SOON_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// Chromium without a permission that it could ask for denies it, as a user does who presses "Block".
const MICROPHONES = {
  recording: (file) => [
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
    `--use-file-for-fake-audio-capture=${file}%noloop`,
  ],
  denied: () => ['--use-fake-device-for-media-stream'],
  none: () => ['--use-fake-ui-for-media-stream'],
};

// Runs in the page before its scripts: remembers what they open.
function watchResources() {
  const opened = { contexts: [], tracks: [], intervals: new Set() };
  globalThis.stillOpen = () => ({
    contexts: opened.contexts.filter((context) => context.state !== 'closed').length,
    tracks: opened.tracks.filter((track) => track.readyState !== 'ended').length,
    intervals: opened.intervals.size,
  });
  globalThis.AudioContext = class extends AudioContext {
    constructor(...options) {
      super(...options);
      opened.contexts.push(this);
    }
  };
  const getUserMedia = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (getUserMedia) {
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      const stream = await getUserMedia(wanted);
      opened.tracks.push(...stream.getTracks());
      return stream;
    };
  }
  const { setInterval, clearInterval } = globalThis;
  globalThis.setInterval = (...call) => {
    const id = setInterval(...call);
    opened.intervals.add(id);
    return id;
  };
  globalThis.clearInterval = (id) => {
    opened.intervals.delete(id);
    clearInterval(id);
  };
}

class TalkPage {
  constructor(tab, url) {
    this.tab = tab;
    this.url = url;
    this.problems = [];
    this.addresses = [];
    this.sockets = 0;
    this.playedMs = 0;
    tab.on('pageerror', (error) => this.problems.push(String(error)));
    tab.on('request', (request) => this.addresses.push(request.url()));
    tab.on('framenavigated', (frame) => this.addresses.push(frame.url()));
    tab.on('websocket', (socket) => {
      this.sockets += 1;
      this.addresses.push(socket.url());
      socket.on('framesent', ({ payload }) => {
        if (typeof payload !== 'string' || !payload.includes('"playhead"')) return;
        this.playedMs = Math.max(this.playedMs, JSON.parse(payload).playedMs);
      });
    });
  }

  open() {
    return this.tab.goto(this.url);
  }

  // Presses the button that has this name at the moment.
  press(name) {
    return this.tab.getByRole('button', { name, exact: true }).click({ timeout: SOON_MS });
  }

  async type(text) {
    await this.tab.fill('#line', text);
    await this.tab.press('#line', 'Enter');
  }

  status(text) {
    return this.tab.waitForFunction(
      (wanted) => document.querySelector('#status').textContent === wanted, text, { timeout: SOON_MS },
    );
  }

  // Waits for so many responses that are whole.
  responses(count) {
    return this.tab.waitForFunction(
      (wanted) => document.querySelectorAll('#conversation li.june').length >= wanted
        && document.querySelector('#timing').textContent !== '–',
      count, { timeout: SOON_MS },
    );
  }

  async text(selector) {
    return this.tab.textContent(selector, { timeout: SOON_MS });
  }

  texts(selector) {
    return this.tab.locator(selector).allTextContents();
  }

  isVisible(selector) {
    return this.tab.isVisible(selector);
  }

  focused() {
    return this.tab.evaluate(() => document.activeElement.id);
  }

  stillOpen() {
    return this.tab.evaluate(() => globalThis.stillOpen());
  }

  // The gateway's own list of sessions.
  async sessions() {
    const response = await fetch(new URL('/api/admin/sessions', this.url));
    return (await response.json()).sessions;
  }

  // Open WebSockets, by the gateway's own count.
  async openSockets() {
    const metrics = await (await fetch(new URL('/metrics', this.url))).text();
    return Number(/^june_sockets (\d+)$/m.exec(metrics)?.[1] ?? 0);
  }

  // Waits until the gateway has no client, and no session that is not over.
  gatewayIsIdle() {
    return until('the gateway is idle', async () => {
      const active = (await this.sessions()).filter(({ status }) => status === 'active');
      return !active.length && !await this.openSockets();
    });
  }

  // Puts the test between the page and the gateway's control channel: `connections` has what the page sent on each,
  // and can say something to it, and close, as the gateway would. Those whose number is in `refused` get a close code at
  // once.
  async interceptChannel({ refused = {} } = {}) {
    this.connections = [];
    await this.tab.routeWebSocket(/\/v1\/ws/, (socket) => {
      const code = refused[this.connections.length + 1];
      if (code) {
        this.connections.push({ sent: [], acks: [] });
        return socket.close({ code });
      }
      const server = socket.connectToServer();
      const connection = {
        sent: [],
        acks: [],
        say: (message) => socket.send(JSON.stringify(message)),
        close: async (code) => {
          await socket.close({ code, reason: 'closed by the test' });
          await server.close();
        },
      };
      this.connections.push(connection);
      socket.onMessage((data) => {
        if (typeof data === 'string') connection.sent.push(JSON.parse(data));
        server.send(data);
      });
      server.onMessage((data) => {
        if (typeof data === 'string' && data.includes('"connection_ack"')) connection.acks.push(JSON.parse(data));
        socket.send(data);
      });
    });
  }

  // The page's connection with this number, attached.
  async connection(number) {
    await until(`connection ${number} is attached`, () => this.connections[number - 1]?.acks.length);
    return this.connections[number - 1];
  }

  // What the page sent of this type on a connection; waits for it.
  async sent(connection, type) {
    const found = () => connection.sent.find((message) => message.type === type);
    await until(type, found);
    return found();
  }
}

// Runs a scenario with a page, and closes its browser.
exports.withPage = async function withPage({ url, recording, microphone }, scenario) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'june-browser-'));
  const file = path.join(folder, 'microphone.wav');
  if (recording) fs.writeFileSync(file, asMicrophone(recording));
  const browser = await chromium.launchPersistentContext(path.join(folder, 'profile'), {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--autoplay-policy=no-user-gesture-required', ...MICROPHONES[microphone](file),
    ],
  });
  try {
    const tab = await browser.newPage();
    await tab.addInitScript(watchResources);
    return await scenario(new TalkPage(tab, url));
  } finally {
    await browser.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
};
