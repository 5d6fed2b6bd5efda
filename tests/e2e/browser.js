// Drives the talk page: node browser.js PAGE FILE.wav
//
// Chromium's fake microphone plays the file once. Prints, as JSON, what the page showed, how much of the
// answer it says it played, and whatever the browser complained about.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { chromium } = require('playwright-core');

const [page, recording] = process.argv.slice(2);

// Chromium wants 44.1 or 48 kHz from a file; three times 16 is 48.
function upsampled(file) {
  const wav = fs.readFileSync(file);
  const data = wav.indexOf('data') + 8;
  const samples = new Int16Array(wav.buffer.slice(wav.byteOffset + data));
  // The page needs a moment to connect: the recording begins with silence, which is heard as such.
  const silence = 48_000 * 4;
  const out = Buffer.alloc(44 + (silence + samples.length * 3 + 48_000 * 2) * 2);
  out.write('RIFF', 0);
  out.writeUInt32LE(out.length - 8, 4);
  out.write('WAVEfmt ', 8);
  out.writeUInt32LE(16, 16);
  out.writeUInt16LE(1, 20);
  out.writeUInt16LE(1, 22);
  out.writeUInt32LE(48_000, 24);
  out.writeUInt32LE(96_000, 28);
  out.writeUInt16LE(2, 32);
  out.writeUInt16LE(16, 34);
  out.write('data', 36);
  out.writeUInt32LE(out.length - 44, 40);
  samples.forEach((sample, n) => {
    const next = samples[n + 1] ?? 0;
    for (let third = 0; third < 3; third++) {
      const value = Math.round(sample + ((next - sample) * third) / 3);
      out.writeInt16LE(value, 44 + (silence + n * 3 + third) * 2);
    }
  });
  return out;
}

async function main() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'june-browser-'));
  const microphone = path.join(folder, 'microphone.wav');
  fs.writeFileSync(microphone, upsampled(recording));
  const browser = await chromium.launchPersistentContext(path.join(folder, 'profile'), {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--autoplay-policy=no-user-gesture-required',
      '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
      `--use-file-for-fake-audio-capture=${microphone}%noloop`,
    ],
  });
  try {
    const tab = await browser.newPage();
    const problems = [];
    tab.on('pageerror', (error) => problems.push(String(error)));
    let played = 0;
    tab.on('websocket', (socket) => socket.on('framesent', ({ payload }) => {
      if (typeof payload !== 'string' || !payload.includes('"playhead"')) return;
      played = Math.max(played, JSON.parse(payload).playedMs);
    }));
    await tab.goto(page);
    await tab.click('#start');
    await tab.waitForSelector('#conversation li.you', { timeout: 40_000 });
    await tab.waitForFunction(() => document.querySelector('#timing').textContent !== '–', null, { timeout: 20_000 });
    const text = (selector) => tab.textContent(selector);
    const shown = {
      said: await text('#conversation li.you'),
      answer: await text('#conversation li.june'),
      media: await text('#media'),
    };
    await tab.click('#start');
    await tab.waitForFunction(() => document.querySelector('#status').textContent === 'Not connected');
    console.log(JSON.stringify({ ...shown, played, problems }));
  } finally {
    await browser.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
