// A participant with livekit-client in headless Chromium.  browser.cjs URL TOKEN WHAT [ARGUMENTS]
//
//   tone HZ            publishes a tone of amplitude 12000
//   listen             measures received audio, window by window: prints "measured HZ AMPLITUDE SNR"
//
// Prints "joined" after it has joined. Runs until it is killed. Chromium's files are in TMPDIR.

const os = require('node:os');
const path = require('node:path');
const { chromium } = require('playwright-core');
const { measure } = require('./tone.cjs');

const RATE = 48000;

const say = (...words) => process.stdout.write(words.join(' ') + '\n');

// Runs in the page.
async function join({ url, token, what, hz, rate }) {
  const { Room, RoomEvent, Track } = LivekitClient;
  const context = new AudioContext({ sampleRate: rate });
  const room = new Room();
  room.on(RoomEvent.TrackSubscribed, (track) => {
    if (what !== 'listen' || track.kind !== Track.Kind.Audio) return;
    // Chromium decodes a remote track only while an element plays it.
    document.body.append(track.attach());
    const analyser = new AnalyserNode(context, { fftSize: 32768 });
    context.createMediaStreamSource(new MediaStream([track.mediaStreamTrack])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      measured(Array.from(samples, (sample) => sample * 32768));
    }, (1000 * analyser.fftSize) / rate);
  });
  await room.connect(url, token);
  joined();
  if (what !== 'tone') return;
  const tone = new OscillatorNode(context, { frequency: hz });
  const gain = new GainNode(context, { gain: 12000 / 32768 });
  const out = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  tone.connect(gain).connect(out);
  tone.start();
  const publication = await room.localParticipant.publishTrack(out.stream.getAudioTracks()[0], {
    name: 'tone',
    source: Track.Source.Microphone,
    audioPreset: { maxBitrate: 96_000 },
  });
  published(publication.trackSid);
}

async function main(url, token, what, hz) {
  const browser = await chromium.launchPersistentContext(path.join(os.tmpdir(), 'profile'), {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--autoplay-policy=no-user-gesture-required',
    ],
  });
  const tab = await browser.newPage();
  tab.on('pageerror', (error) => process.stderr.write(`${error}\n`));
  await tab.exposeFunction('joined', () => say('joined'));
  await tab.exposeFunction('published', (sid) => say('published', sid));
  await tab.exposeFunction('measured', (pcm) => say('measured', ...measure(pcm, RATE).map((value) => value.toFixed(2))));
  await tab.addScriptTag({ path: require.resolve('livekit-client') });
  await tab.evaluate(join, { url, token, what, hz: Number(hz), rate: RATE });
}

main(...process.argv.slice(2)).catch((error) => {
  process.stderr.write(`${error}\n`);
  process.exit(1);
});
